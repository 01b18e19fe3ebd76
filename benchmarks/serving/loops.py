"""Clients: a closed loop, in which each waits for its answer, and an open one, in which none does."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import httpx
import numpy as np

Call = Callable[[], Awaitable[tuple[int, int]]]
"""Sends one image; status and bytes of the answer."""


@dataclass
class Outcome:
    """What the clients of a loop met in ``seconds``; ``ms`` and ``bytes`` are of the answers 200."""

    ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    seconds: float = 0.0

    async def meet(self, call: Call, due: float) -> None:
        """Send an image that was ``due`` then (`time.perf_counter`): its time counts from there."""
        try:
            status, size = await call()
        except httpx.TransportError as error:
            self.errors[type(error).__name__] += 1
            return
        self.statuses[status] += 1
        if status == httpx.codes.OK:
            self.ms.append(1000 * (time.perf_counter() - due))
            self.bytes += size

    @property
    def rate(self) -> float:
        """Answers 200 a second."""
        return len(self.ms) / self.seconds

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> "Outcome":
        """All answers of several loops."""
        merged = Outcome(seconds=sum(part.seconds for part in parts))
        for part in parts:
            merged.ms += part.ms
            merged.statuses += part.statuses
            merged.errors += part.errors
            merged.bytes += part.bytes
        return merged

    def summary(self) -> dict[str, object]:
        """Milliseconds, responses per second, bytes per response, statuses and errors."""
        return percentiles(self.ms) | {
            "answers": len(self.ms),
            "per_s": round(self.rate, 2),
            "bytes": self.bytes // max(len(self.ms), 1),
            "statuses": dict(sorted(self.statuses.items())),
            "errors": dict(self.errors),
        }


def percentiles(values: Sequence[float]) -> dict[str, object]:
    """50th, 90th, 95th and 99th percentile; None where there is no value."""
    if not values:
        return dict.fromkeys(("p50", "p90", "p95", "p99"))
    return {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (50, 90, 95, 99)}


async def closed_loop(call: Call, clients: int, seconds: float = 0.0, at_least: int = 1) -> Outcome:
    """Each client sends the next image when it has its answer, for ``seconds`` and ``at_least`` times."""
    outcome = Outcome()
    start = time.perf_counter()

    async def client() -> None:
        sent = 0
        while sent < at_least or time.perf_counter() - start < seconds:
            await outcome.meet(call, time.perf_counter())
            sent += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - start
    return outcome


async def open_loop(call: Call, rate: float, seconds: float) -> Outcome:
    """Images arrive at random (Poisson), ``rate`` a second, whether or not the earlier ones are answered.

    An image's time counts from when it was due, so that no waiting is hidden ("coordinated omission").
    """
    outcome = Outcome()
    generator = np.random.default_rng(0)
    due = np.cumsum(generator.exponential(1 / rate, max(1, round(rate * seconds))))
    start = time.perf_counter()

    async def arrive(at: float) -> None:
        await asyncio.sleep(at - time.perf_counter())
        await outcome.meet(call, at)

    await asyncio.gather(*(arrive(start + float(at)) for at in due))
    outcome.seconds = time.perf_counter() - start
    return outcome
