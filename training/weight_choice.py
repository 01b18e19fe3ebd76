"""The two sets of weights of a run with an average, and which of them is better on validation."""

from collections.abc import Mapping, Sequence

from training.metrics import Report
from training.metrics.delta_mtl import gain_over
from training.tasks import Task

AVERAGE, RAW = "average", "raw"
"""Names of the two."""


def columns(reports: Mapping[str, Report]) -> dict[str, float]:
    """``TASK/METRIC`` of the average and ``raw/TASK/METRIC`` beside it, or of the raw weights alone."""
    row: dict[str, float] = {}
    for weights, report in reports.items():
        prefix = "raw/" if weights == RAW and AVERAGE in reports else ""
        for task, values in report.items():
            row |= {f"{prefix}{task}/{metric}": value for metric, value in values.items()}
    return row


def compare(reports: Mapping[str, Report], tasks: Sequence[Task]) -> tuple[str, float] | None:
    """Which weights are better, and the gain of the average over the raw ones in per cent.

    The gain is the mean over the tasks of that of their headline metrics; None: one set was not scored, or no
    task was.
    """
    if not {AVERAGE, RAW} <= reports.keys():
        return None
    gain = gain_over(reports[AVERAGE], reports[RAW], tasks)
    return None if gain is None else (RAW if gain < 0 else AVERAGE, gain)
