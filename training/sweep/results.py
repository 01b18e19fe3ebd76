"""The results of a sweep over its seeds: JSON, Markdown tables and weight curves."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtcp_serve.utils.atomic import write_atomic
from training.metrics import Report, delta_mtl
from training.metrics.delta_mtl import HEADLINE, Protocol
from training.plot import plot_weights
from training.report import headlines, markdown
from training.sweep.config import SweepConfig
from training.sweep.runner import Run, runs
from training.tasks import Task, entry

PROTOCOL: Protocol = "invpt"
"""Depth, normals and saliency in tables: every labelled pixel counts."""
DELTA = "Delta-MTL %"
GAIN = "gain"
"""A row's Delta-MTL minus the reference row's of the same seed, which shares the single-task runs."""

Spread = tuple[float, float | None, int]
"""Mean, sample standard deviation (None with one seed) and number of seeds."""


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample deviation over the seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation, len(values)


def collect(
    sweep: SweepConfig, tasks: Sequence[Task], output: Path
) -> dict[str, dict[str, dict[str, Spread]]]:
    """Split (``val``, ``test``) -> row -> task, `DELTA` or `GAIN` -> metric, of all finished runs.

    Delta-MTL compares a run with the single-task runs of its own seed.
    """
    done = [(run, report) for run in runs(sweep, output) if (report := run.report()) is not None]
    results: dict[str, dict[str, dict[str, Spread]]] = {}
    for split in ("val", "test"):
        reports = {(run.row, run.seed): report[split] for run, report in done if split in report}
        rows = {row: _row(sweep, tasks, reports, row) for row in sweep.rows}
        if reports:
            results[split] = {row: metrics for row, metrics in rows.items() if metrics}
    return results


def _row(
    sweep: SweepConfig, tasks: Sequence[Task], reports: Mapping[tuple[str, int], Report], row: str
) -> dict[str, Spread]:
    values: dict[str, list[float]] = {}
    for seed in sweep.seeds:
        report = reports.get((row, seed))
        if report is None:
            continue
        for name, value in headlines(report, tasks, PROTOCOL).items():
            values.setdefault(name, []).append(value)
        delta = _delta(sweep, tasks, reports, row, seed)
        if delta is None:
            continue
        values.setdefault(DELTA, []).append(delta)
        if sweep.reference is not None and row != sweep.reference:
            reference = _delta(sweep, tasks, reports, sweep.reference, seed)
            if reference is not None:
                values.setdefault(GAIN, []).append(delta - reference)
    return {name: spread(found) for name, found in values.items()}


def _delta(
    sweep: SweepConfig, tasks: Sequence[Task], reports: Mapping[tuple[str, int], Report], row: str, seed: int
) -> float | None:
    """Delta-MTL of one run; None while it or a single-task run of its seed is missing, or it lacks a task."""
    report, single = reports.get((row, seed), {}), _single(sweep, reports, seed)
    if not all(task.name in report and task.name in single for task in tasks):
        return None
    return delta_mtl(report, single, tasks, PROTOCOL)


def _single(sweep: SweepConfig, reports: Mapping[tuple[str, int], Report], seed: int) -> Report:
    alone = {task: reports.get((row, seed), {}) for task, row in sweep.single_task.items()}
    return {task: report[task] for task, report in alone.items() if task in report}


def table(sweep: SweepConfig, tasks: Sequence[Task], metrics: Mapping[str, Mapping[str, Spread]]) -> str:
    """A Markdown table of one split: mean and deviation over the seeds, the paper's value in brackets."""
    gain = [] if sweep.reference is None else [f"{GAIN} over {sweep.reference}"]
    header = ["", *(_heading(task) for task in tasks), DELTA, *gain, "seeds"]
    lines = []
    for row, values in metrics.items():
        published = sweep.published.get(row, {})
        cells = [_cell(values.get(task.name), published.get(task.name)) for task in tasks]
        seeds = max(count for _, _, count in values.values())
        cells += [_cell(values.get(name), None, digits=2) for name in (DELTA, *([GAIN] if gain else []))]
        lines.append([row, *cells, str(seeds)])
    return markdown(header, lines)


def _heading(task: Task) -> str:
    metric, higher = entry(HEADLINE, task)
    return f"{task.name} {metric} {'↑' if higher else '↓'}"


def _cell(metric: Spread | None, published: float | None, digits: int | None = None) -> str:
    if metric is None:
        return ""
    mean, deviation, _ = metric
    if digits is None:
        digits = 2 if abs(mean) >= 2 else 4
    text = f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
    return text if published is None else f"{text} ({published:g})"


def best_row(metrics: Mapping[str, Mapping[str, Spread]]) -> str | None:
    """The row with the largest mean Delta-MTL; None without any."""
    scored = {row: values[DELTA][0] for row, values in metrics.items() if DELTA in values}
    scored = {row: value for row, value in scored.items() if math.isfinite(value)}
    return max(scored, key=lambda row: scored[row]) if scored else None


def write_results(sweep: SweepConfig, tasks: Sequence[Task], output: Path) -> Path | None:
    """Write ``results.json``, ``table.md`` and ``weights.svg`` into ``output``; the table's path, if any.

    The row that stands out is chosen on ``val``; ``test`` only reports.
    """
    results = collect(sweep, tasks, output)
    if not results:
        return None
    finished = [run for run in runs(sweep, output) if run.report() is not None]
    planned = len(sweep.seeds) * len(sweep.rows)
    text = f"# {sweep.name}\n\n{len(finished)} of {planned} runs finished.\n"
    for split, metrics in results.items():
        text += f"\n## {split}\n\n{table(sweep, tasks, metrics)}"
    chosen = best_row(results["val"])
    if chosen is not None:
        text += f"\nLargest mean Delta-MTL on val: {chosen}.\n"
    content: dict[str, Any] = {
        "sweep": sweep.model_dump(mode="json"),
        "protocol": PROTOCOL,
        "best_on_val": chosen,
    }
    write_atomic(
        output / "results.json", (json.dumps(content | {"results": results}, indent=1) + "\n").encode()
    )
    write_atomic(output / "table.md", text.encode())
    _draw(sweep, tasks, finished, output)
    return output / "table.md"


def _draw(sweep: SweepConfig, tasks: Sequence[Task], finished: Sequence[Run], output: Path) -> None:
    alone = set(sweep.single_task.values())
    first: dict[str, Path] = {}
    for run in finished:
        if run.row not in alone:
            first.setdefault(run.row, run.folder)
    if first and len(tasks) > 1:
        plot_weights(first, output / "weights.svg")
