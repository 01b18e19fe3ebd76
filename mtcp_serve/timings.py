"""How long each stage of a request took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Milliseconds by stage, in the order in which the stages began."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Add ``seconds`` to ``stage``."""
        self.ms[stage] = round(self.ms.get(stage, 0.0) + 1000 * seconds, 3)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the ``with`` block takes to ``stage``."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def header(self) -> str:
        """The value of a ``Server-Timing`` header, milliseconds."""
        return ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in self.ms.items())
