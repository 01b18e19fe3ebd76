"""Works through images and videos with a progress bar, and says what became of each."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mtcp_serve.cli.common import ERRORS, plain
from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.live import Live
from mtcp_serve.offline.runner import Outcome, predict_files
from mtcp_serve.offline.writer import OutputRequest
from mtcp_serve.utils.atomic import NoRoomError
from mtcp_serve.utils.concurrency import run
from mtcp_serve.utils.exit_status import ExitStatus


class Work:
    """The work on ``items``; `run` does it once."""

    def __init__(self, items: list[Item], requested: OutputRequest, limits: ImageLimits, live: Live) -> None:
        self._items = items
        self._requested = requested
        self._limits = limits
        self._live = live
        self._made = self._skipped = self._failed = 0
        self._bars = Progress(
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
            console=ERRORS,
            disable=len(items) == 1 and not items[0].video and items[0].address is None,
        )
        self._frames: TaskID | None = None

    def run(self) -> int:
        """Do it; the exit status."""
        try:
            with self._bars, self._ended_by_interrupt():
                run(self._run())
        except NoRoomError as error:
            ERRORS.print(f"[bold red]error:[/] {plain(error)}")
            self._sum_up("stopped")
            return ExitStatus.FAILED
        except KeyboardInterrupt:
            self._sum_up("interrupted")
            return ExitStatus.INTERRUPTED
        if self._live.stop.is_set():
            self._sum_up("interrupted")
            return ExitStatus.INTERRUPTED
        if len(self._items) > 1:
            self._sum_up("finished")
        return ExitStatus.FAILED if self._failed else 0

    async def _run(self) -> None:
        bar = self._bars.add_task("files", total=len(self._items))
        async for outcome in predict_files(
            self._items, self._requested, self._limits, self._on_frame, self._live
        ):
            self._report(outcome)
            self._bars.advance(bar)
            if self._live.stop.is_set():
                return
            if self._frames is not None:
                self._bars.remove_task(self._frames)
                self._frames = None

    @contextmanager
    def _ended_by_interrupt(self) -> Iterator[None]:
        """With cameras and streams, have the first interrupt end them, and only the second one the work."""
        if all(item.address is None for item in self._items):
            yield
            return

        def stop(*_: object) -> None:
            self._live.stop.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _on_frame(self, done: int, total: int | None) -> None:
        if self._frames is None:
            self._frames = self._bars.add_task("frames", total=total)
        self._bars.update(self._frames, completed=done, total=total)

    def _report(self, outcome: Outcome) -> None:
        path, folder = _one_line(outcome.item.shown), _one_line(outcome.item.folder)
        for note in outcome.notes:
            ERRORS.print(f"{path}: {plain(note)}")
        if outcome.error is not None:
            self._failed += 1
            ERRORS.print(f"[bold red]failed:[/] {path}: {plain(outcome.error)}")
        elif outcome.skipped:
            self._skipped += 1
            if len(self._items) == 1:
                ERRORS.print(f"{path} is complete in {folder}; --overwrite makes it again")
        else:
            self._made += 1
            ERRORS.print(f"{path} -> {folder}  {outcome.seconds:.2f} s")

    def _sum_up(self, how: str) -> None:
        left = len(self._items) - self._made - self._skipped - self._failed
        parts = [f"{self._made} done"]
        parts += [f"{self._skipped} were complete before"] if self._skipped else []
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{left} left; the same command goes on with them"] if left else []
        ERRORS.print(f"{how}: {', '.join(parts)}")


def _one_line(path: object) -> str:
    """`plain`, with the newlines that a file's name may have spelled out too: a line is of one image."""
    return plain(path).replace("\n", r"\n")
