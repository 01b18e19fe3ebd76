"""How the commands of training say what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from mtcp_serve.utils.exit_status import ExitStatus


@contextmanager
def told(*more: type[Exception]) -> Iterator[None]:
    """What can be wrong without a fault of the program, ``more`` too, ends in one line and an exit status."""
    from training.checkpoint import CheckpointError
    from training.config import ConfigError
    from training.data import DataError
    from training.depth_offset import NoMetricDepthError
    from training.distributed import DeviceError
    from training.logit_adjustment import StrengthError
    from training.model.pretrained import WeightsError
    from training.plot import PlotError
    from training.report import ReportError
    from training.run_log import HistoryError
    from training.trainer import TrainingError

    wrong: tuple[type[Exception], ...] = (
        ConfigError,
        DataError,
        WeightsError,
        CheckpointError,
        HistoryError,
        ReportError,
        PlotError,
        StrengthError,
        NoMetricDepthError,
        TrainingError,
        OSError,
        *more,
    )
    try:
        yield
    except wrong as error:
        console = Console(stderr=True)
        said = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        )
        console.print(f"[red]error:[/red] {escape(str(said))}", soft_wrap=True, highlight=False)
        status = ExitStatus.FAILED if isinstance(error, TrainingError) else ExitStatus.NOTHING_DONE
        raise typer.Exit(ExitStatus.CANNOT_HERE if isinstance(error, DeviceError) else status) from error
