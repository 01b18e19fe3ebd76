"""A picture of reliability: what a confidence says against how often the map is right."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.metrics.confidence import BINS
from training.plot import PlotError, save_figure


def read_curves(report: Path) -> dict[str, list[dict[str, float]]]:
    """By task name the bins of a report that ``evaluate`` or ``confidence`` wrote.

    Raises:
        PlotError: it is no such report, or has no curves.
    """
    try:
        content: Any = json.loads(report.read_text())
        curves: dict[str, list[dict[str, float]]] = content.get("reliability", {})
    except (OSError, ValueError, AttributeError) as error:
        raise PlotError(f"{report} is not a report of evaluate: {error}") from error
    if not curves:
        raise PlotError(f"{report} has no reliability curves: the network says nothing of how sure it is")
    return curves


def plot_reliability(report: Path, output: Path) -> None:
    """Draw the curves of ``report`` to ``output``, PNG or SVG by its suffix, a panel for each task.

    Raises:
        PlotError: there are none, or the suffix is neither.
    """
    curves = read_curves(report)
    figure = Figure(figsize=(2.4 * len(curves), 2.7), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (task, bins) in zip(axes, curves.items(), strict=True):
        _panel(axis, task, bins)
    save_figure(figure, output)


def _panel(axis: Axes, task: str, bins: list[dict[str, float]]) -> None:
    """The curve over bars of how many pixels are in each bin; the diagonal is what was promised."""
    middles = [(min(BINS - 1, int(BINS * part["confidence"])) + 0.5) / BINS for part in bins]
    axis.bar(middles, [part["share"] for part in bins], 0.9 / BINS, color="0.85", label="share of pixels")
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    axis.plot(
        [part["confidence"] for part in bins], [part["accuracy"] for part in bins], marker=".", label="right"
    )
    axis.set_title(task, fontsize=9)
    axis.set_xlabel("confidence", fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=6)
