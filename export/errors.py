"""What can go wrong on the way from a checkpoint to a bundle.

With the exit status of the commands::

    ExportError              2, nothing was done
    ├── ParityError          1, what was made is not right
    ├── MachineError         3, this machine cannot
    ├── TritonError          1, Triton ended
    └── PlanError            1, TensorRT began and could not finish
        └── PlanMismatchError    3, another machine can
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar

import typer

from export.interrupts import remembered
from mtcp_serve.errors import BundleError
from mtcp_serve.utils.exit_status import ExitStatus


class ExportError(Exception):
    """The network cannot become a bundle; the message says why, in terms of what the caller gave."""

    status: ClassVar[ExitStatus] = ExitStatus.NOTHING_DONE


class ParityError(ExportError):
    """Maps differ from what they should be; ``faults`` says for each task that failed what was measured."""

    status = ExitStatus.FAILED

    def __init__(self, faults: Mapping[str, str], claim: str) -> None:
        super().__init__(
            f"{claim}: " + "; ".join(f"task {task!r}: {fault}" for task, fault in faults.items())
        )
        self.faults = dict(faults)


class MachineError(ExportError):
    """This machine cannot do it; the message says what it lacks."""

    status = ExitStatus.CANNOT_HERE


class TritonError(ExportError):
    """Triton was started and ended, or did not become ready; the message has the end of its log."""

    status = ExitStatus.FAILED


class PlanError(ExportError):
    """TensorRT refused the graph or the plan, or built something else than was asked for."""

    status = ExitStatus.FAILED


class PlanMismatchError(PlanError):
    """A plan was built for another TensorRT or GPU than this machine has; the message names both."""

    status = ExitStatus.CANNOT_HERE


@contextmanager
def told(*others: type[Exception]) -> Iterator[None]:
    """What can be wrong without a fault of the program ends in one line and an exit status.

    That is an `ExportError`, a `BundleError`, and ``others``: then nothing was done. An interrupt that a
    library drops is remembered; see `export.interrupts`.
    """
    known: tuple[type[Exception], ...] = (ExportError, BundleError, *others)
    try:
        with remembered():
            yield
    except known as error:
        typer.echo(f"error: {error}", err=True)
        status = error.status if isinstance(error, ExportError) else ExitStatus.NOTHING_DONE
        raise typer.Exit(status) from error
