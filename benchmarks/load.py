"""A server under a closed loop of clients: ``python -m benchmarks.load --clients 64 --seconds 60``.

Each client sends an image, waits for the answer, and sends the next; after a 429 or 503 it waits as long as
``Retry-After`` says. More clients than the server works on and lets wait (``--concurrency``,
``--queue-size``) are an overload; ``--clients 2 --seconds 600`` is ten minutes at capacity.

Prints JSON:

- answers by status and transport errors; requests a second that were sent, and that were answered 200 (until
  the last answer, which comes after the last request), and their ratio;
- seconds of the answered requests (median to 99th percentile, largest), against the deadline;
- the longest queue, looked at once a second;
- resident memory: the curve (at most 60 samples), and of its second half the slope of a straight line and the
  difference between the largest and the smallest;
- ``verdict``: whether every answer was 200 or 429, whether the queue stayed within its bound, and whether the
  99th percentile of the answered requests was within the deadline. Exit status 1 if one of them is not so.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer

from benchmarks.machine import machine, resident_megabytes
from benchmarks.serving.gateway import gateway
from mtcp_serve.bundle import DEFAULT_BUNDLE

IMAGE = Path(__file__).parent.parent / "docs" / "astronaut.jpg"
_SAMPLE_S = 1.0
_SHOWN = 60


class Load:
    """What the clients met."""

    def __init__(self, url: str, query: str, image: bytes) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.elapsed = 0.0
        """Seconds from the first request to the last answer."""
        self.queue = 0
        self.memory: list[tuple[float, float]] = []
        """When (seconds from the start) and how much (MB)."""
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=120,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._query = query
        self._image = image

    async def client(self, end: float) -> None:
        """One client of the closed loop, until the clock says ``end``."""
        headers = {"Content-Type": "image/jpeg"}
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                response = await self._http.post(
                    f"/predict?{self._query}", content=self._image, headers=headers
                )
            except httpx.TransportError as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(_SAMPLE_S)
                continue
            self.statuses[response.status_code] += 1
            if response.status_code == httpx.codes.OK:
                self.seconds.append(time.perf_counter() - start)
            await asyncio.sleep(float(response.headers.get("Retry-After", 0)))

    async def watch(self, pid: int) -> None:
        """Sample memory and queue once a second."""
        start = time.perf_counter()
        while True:
            if (memory := resident_megabytes(pid)) is not None:
                self.memory.append((round(time.perf_counter() - start, 1), memory))
            with suppress(httpx.TransportError):  # a server that is gone shows in the clients' errors
                metrics = (await self._http.get("/metrics")).text
                found = re.search(r"^mtcp_queue_requests (\S+)$", metrics, re.MULTILINE)
                assert found is not None
                self.queue = max(self.queue, int(float(found[1])))
            await asyncio.sleep(_SAMPLE_S)

    async def run(self, pid: int, clients: int, seconds: float) -> None:
        """All clients at once."""
        start = time.perf_counter()
        async with self._http, asyncio.TaskGroup() as group:
            watching = group.create_task(self.watch(pid))
            await asyncio.gather(*(self.client(start + seconds) for _ in range(clients)))
            self.elapsed = time.perf_counter() - start
            watching.cancel()


def memory_report(samples: Sequence[tuple[float, float]]) -> dict[str, object]:
    """The curve of (seconds, MB), and how its second half rises (MB a minute) and varies (MB)."""
    if len(samples) < 4:
        return {"curve": list(samples)}
    times, megabytes = np.array(samples[len(samples) // 2 :]).T
    slope = np.polyfit(times / 60, megabytes, 1)[0]
    return {
        "slope_mb_per_min": round(float(slope), 2),
        "max_minus_min_mb": round(float(np.ptp(megabytes)), 1),
        "curve": samples[:: -(-len(samples) // _SHOWN)],
    }


def main(
    clients: Annotated[int, typer.Option(help="Clients of the closed loop.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long they send.")] = 60.0,
    image: Annotated[Path, typer.Option(help="The image to send.", exists=True)] = IMAGE,
    query: Annotated[str, typer.Option(help="Query of POST /predict.")] = "format=npz&size=model",
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads per inference.")] = 2,
    concurrency: Annotated[int, typer.Option(help="The server's.")] = 2,
    queue_size: Annotated[int, typer.Option(help="The server's.")] = 32,
    deadline_s: Annotated[float, typer.Option(help="The server's, seconds.")] = 30.0,
) -> None:
    """Start a server, load it, and print what happened."""
    bounds = {"--concurrency": concurrency, "--queue-size": queue_size, "--deadline-s": deadline_s}
    options = [str(part) for option in bounds.items() for part in option]
    where = machine(threads)
    with gateway(bundle, threads, *options) as server:
        load = Load(server.url, query, image.read_bytes())
        asyncio.run(load.run(server.pid, clients, seconds))
    shares = np.percentile(load.seconds or [np.inf], (50, 90, 99, 100))
    offered = (load.statuses.total() + load.errors.total()) / seconds
    answered = len(load.seconds) / load.elapsed
    verdict = {
        "only_200_and_429": set(load.statuses) <= {200, 429} and not load.errors,
        "queue_bounded": load.queue <= queue_size,
        "within_deadline": bool(shares[2] <= deadline_s),
    }
    report = {
        "machine": where,
        "clients": clients,
        "seconds": seconds,
        "query": query,
        "server": {"concurrency": concurrency, "queue_size": queue_size, "deadline_s": deadline_s},
        "statuses": dict(sorted(load.statuses.items())),
        "transport_errors": dict(load.errors),
        "offered_per_s": round(offered, 2),
        "answered_per_s": round(answered, 2),
        "offered_over_answered": round(offered / answered, 2) if answered else None,
        "answered_s": {
            name: round(float(share), 3)
            for name, share in zip(("p50", "p90", "p99", "max"), shares, strict=True)
        },
        "longest_queue": load.queue,
        "resident_mb": memory_report(load.memory),
        "verdict": verdict,
    }
    print(json.dumps(report))
    if not all(verdict.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
