"""How long each stage of a request took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """A stage, and when it began and ended on the clock of `time.perf_counter`, seconds."""

    stage: str
    start: float
    end: float


class Timings:
    """What a request's time was spent on, in the order in which the stages ended."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @property
    def ms(self) -> dict[str, float]:
        """Milliseconds by stage; a stage that was entered several times counts in full."""
        total: dict[str, float] = {}
        for stage, start, end in self.spans:
            total[stage] = total.get(stage, 0.0) + 1000 * (end - start)
        return {stage: round(ms, 3) for stage, ms in total.items()}

    def add(self, stage: str, start: float, end: float) -> None:
        """Say that ``stage`` ran from ``start`` to ``end``, both of `time.perf_counter`."""
        self.spans.append(Span(stage, start, end))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the ``with`` block takes to ``stage``."""
        start = time.perf_counter()
        yield
        self.add(stage, start, time.perf_counter())

    def header(self) -> str:
        """The value of a ``Server-Timing`` header, milliseconds."""
        return ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in self.ms.items())
