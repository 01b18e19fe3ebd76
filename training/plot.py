"""Pictures of a run: losses, task weights and metrics over the epochs (the paper's Fig. 6 from any run)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.metrics.delta_mtl import HEADLINE
from training.run_log import HISTORY, read_history

Rows = Sequence[Mapping[str, Any]]


class PlotError(ValueError):
    """Nothing to draw; says what is missing."""


def run_history(run: Path) -> list[dict[str, Any]]:
    """The history of a run folder.

    Raises:
        PlotError: it has none yet.
        HistoryError: it is damaged.
    """
    rows = read_history(run / HISTORY)
    if not rows:
        raise PlotError(f"{run} has no {HISTORY} with a finished epoch")
    return rows


def series(rows: Rows, column: str) -> tuple[list[int], list[float]]:
    """Epochs and values of a column where it has any; NaN (a task without labels) counts as none."""
    points = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    return [epoch for epoch, value in points if value == value], [v for _, v in points if v == v]


def panels(rows: Rows) -> dict[str, list[str]]:
    """Title -> columns to draw together: losses, weights, then each headline metric that was validated."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    drawn = {
        "loss": [name for name in columns if name.startswith("loss/")],
        "task weight": [name for name in columns if name.startswith("weight/")],
        "encoder weight": [name for name in columns if name.startswith("encoder_weight/")],
    }
    for metric, better in HEADLINE.values():
        title = f"{metric} ({'higher' if better else 'lower'} is better)"
        drawn[title] = [name for name in columns if metric in name.split("/")[1:]]
    return {title: names for title, names in drawn.items() if names}


def plot_run(run: Path, output: Path) -> None:
    """Draw the history of ``run`` to ``output``, PNG or SVG by its suffix.

    Raises:
        PlotError: there is no history yet, or the suffix is neither.
        HistoryError: the history is damaged.
    """
    rows = run_history(run)
    chosen = panels(rows)
    figure = Figure(figsize=(4 * min(3, len(chosen)), 3 * -(-len(chosen) // 3)), layout="constrained")
    axes = figure.subplots(-(-len(chosen) // 3), min(3, len(chosen)), squeeze=False).flatten()
    for axis, (title, names) in zip(axes, chosen.items(), strict=False):
        for name in names:
            prefix, _, task = name.partition("/")
            axis.plot(
                *series(rows, name),
                marker=".",
                label=task if "weight" in prefix or prefix == "loss" else name,
            )
        _finish(axis, title)
    for axis in axes[len(chosen) :]:
        axis.remove()
    save_figure(figure, output)


def plot_weights(runs: Mapping[str, Path], output: Path) -> None:
    """Draw the task weights of several runs, one panel a run with its label, to ``output``."""
    histories = {label: run_history(run) for label, run in runs.items()}
    columns = 4 if len(histories) > 4 else len(histories)
    lines = -(-len(histories) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten()
    for axis, (label, rows) in zip(axes, histories.items(), strict=False):
        heads = [name for name in rows[0] if name.startswith("weight/")]
        encoder = [name for name in rows[0] if name.startswith("encoder_weight/")]
        for index, name in enumerate(heads):
            axis.plot(*series(rows, name), color=f"C{index}", marker=".", label=name.partition("/")[2])
        for index, name in enumerate(encoder):
            axis.plot(*series(rows, name), color=f"C{index}", marker=".", linestyle="--")
        _finish(axis, label)
    for axis in axes[len(histories) :]:
        axis.remove()
    save_figure(figure, output)


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7)


def save_figure(figure: Figure, output: Path) -> None:
    """Write ``figure``, the same bytes each time.

    Raises:
        PlotError: the suffix is neither .png nor .svg.
    """
    if output.suffix not in (".png", ".svg"):
        raise PlotError(f"{output}: choose a name that ends in .png or .svg")
    output.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "mtcp", "svg.fonttype": "none"}):
        figure.savefig(output, dpi=150, metadata={"Date": None} if output.suffix == ".svg" else None)
