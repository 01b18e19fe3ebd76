"""Progress of an epoch: a bar on a terminal, a line every so many steps elsewhere."""

import logging
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


class EpochProgress:
    """Shows steps ``done`` to ``total`` of an epoch.

    Args:
        epoch: its number.
        total: its steps.
        done: steps done before, in a resumed epoch.
        every: steps between two lines where there is no terminal.
        quiet: show nothing.
    """

    def __init__(self, epoch: int, total: int, done: int, every: int, quiet: bool = False) -> None:
        self._label, self._total, self._done, self._every = f"epoch {epoch}", total, done, every
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, transient=True, disable=quiet)
        self._terminal = self._bar.console.is_terminal
        self._bar.disable = quiet or not self._terminal
        self._lines = not quiet and not self._terminal
        self._task = self._bar.add_task(self._label, total=total, completed=done)
        self._started = (time.monotonic(), done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, shown: str) -> None:
        """One more step; ``shown`` says how it went."""
        self._done += 1
        self._bar.update(self._task, advance=1, description=f"{self._label} {shown}")
        if self._lines and (self._done % self._every == 0 or self._done == self._total):
            started, first = self._started
            seconds = (time.monotonic() - started) / (self._done - first)
            log.info("%s step %d/%d, %.2f s a step, %s", self._label, self._done, self._total, seconds, shown)
