"""The metrics of an evaluation as JSON and as a table, beside the paper's where they may be compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from mtcp_serve.utils.atomic import write_atomic
from training.metrics import Report, delta_mtl
from training.metrics.confidence import curve, without_curve
from training.metrics.delta_mtl import HEADLINE, Protocol, headline, scored
from training.tasks import Task, entry
from training.trust import Trust

PROTOCOLS: tuple[Protocol, ...] = ("mtcp", "invpt")

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "nyud-swin-small": {
        "MT-CP (paper, Table 1)": {"semseg": 0.5625, "depth": 0.4316, "normals": 18.60},
        "single-task (paper, Table 1)": {"semseg": 0.5320, "depth": 0.4923, "normals": 19.22},
    },
    "pascal-swin-small": {
        "MT-CP (paper, Table 2)": {"semseg": 0.7996, "parsing": 0.6913, "saliency": 0.8420},
        "single-task (paper, Table 2)": {"semseg": 0.7510, "parsing": 0.6829, "saliency": 0.8222},
    },
}
"""Headline metrics of arXiv 2412.03179 by name of the run; depth and saliency in the protocol ``mtcp``."""


class ReportError(ValueError):
    """A single-task report that does not fit; names it and what is missing."""


def read_single_tasks(given: Sequence[str], tasks: Sequence[Task]) -> Report:
    """The metrics of single-task runs out of ``task=report.json`` pairs.

    Raises:
        ReportError: a pair whose file has no metrics of its task, or a task of ``tasks`` without a pair.
    """
    single: Report = {}
    for pair in given:
        name, _, path = pair.partition("=")
        try:
            single[name] = json.loads(Path(path).read_text())[name]
        except (OSError, ValueError, KeyError) as error:
            raise ReportError(f"--single-task {pair}: no report with metrics of {name!r} there") from error
    if missing := [task.name for task in tasks if task.name not in single]:
        raise ReportError(f"Delta-MTL needs a --single-task report of {', '.join(missing)} too")
    return single


def gains(metrics: Report, single: Report, tasks: Sequence[Task]) -> dict[str, float]:
    """Delta-MTL in per cent by protocol, over the tasks that have its metrics.

    Raises:
        ReportError: no task has any, or the single-task run of one that does has none.
    """
    found: dict[str, float] = {}
    for protocol in PROTOCOLS:
        compared = scored(metrics, tasks, protocol)
        if missing := [task.name for task in compared if not scored(single, [task], protocol)]:
            raise ReportError(
                f"the --single-task reports of {', '.join(missing)} lack the metrics of protocol {protocol}; "
                "evaluate them on the same validation sources"
            )
        if compared:
            found[protocol] = delta_mtl(metrics, single, compared, protocol)
    if not found:
        raise ReportError("no validation source has a label of any task: there is no Delta-MTL")
    return found


def write_json(
    path: Path, metrics: Report, name: str, delta: Mapping[str, float] | None, trust: Trust | None = None
) -> None:
    """By task name the metrics; beside them ``delta_mtl`` and the paper's ``published`` rows, if any.

    And ``reliability``: for each task with a confidence its curve, a list of bins; ``standard_errors``, and
    ``against`` with the ``differences`` to another network and their ``standard_errors``.
    """
    content: dict[str, Any] = {task: without_curve(values) for task, values in metrics.items()}
    curves = {
        task: [asdict(part) for part in parts] for task, values in metrics.items() if (parts := curve(values))
    }
    if curves:
        content["reliability"] = curves
    if trust is not None:
        content["standard_errors"] = trust.errors
        if trust.other is not None:
            content["against"] = {
                "name": trust.other,
                "differences": trust.differences,
                "standard_errors": trust.difference_errors,
            }
    if delta is not None:
        content["delta_mtl"] = dict(delta)
    if name in PUBLISHED:
        content["published"] = PUBLISHED[name]
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


def rows(metrics: Report, delta: Mapping[str, float] | None) -> list[tuple[str, str, float]]:
    """(task, metric, value) of every metric."""
    listed = [
        (task, metric, value)
        for task, values in metrics.items()
        for metric, value in without_curve(values).items()
    ]
    return listed + [("all", f"Delta-MTL/{protocol} %", value) for protocol, value in (delta or {}).items()]


def reliability_table(metrics: Report) -> Table:
    """Every bin of the reliability curve of every task with a confidence, for a terminal."""
    table = Table("task", "confidence", "right", "of the pixels", title="reliability")
    for task, values in metrics.items():
        for part in curve(values):
            table.add_row(task, f"{part.confidence:.3f}", f"{part.accuracy:.3f}", f"{part.share:.3f}")
    return table


def published_value(name: str, row: str, task: Task, metric: str) -> float | None:
    """The paper's value of ``metric`` of ``task``, if the run ``name`` has one in ``row``."""
    headlined = entry(HEADLINE, task)[0]
    if metric not in (headlined, f"{headlined}/mtcp"):
        return None
    return PUBLISHED[name][row].get(task.name)


def _header(name: str, trust: Trust | None) -> list[str]:
    trusted = [] if trust is None else ["±"]
    if trust is not None and trust.other is not None:
        trusted += [f"less {trust.other}", "±"]
    return ["task", "metric", "value", *trusted, *PUBLISHED.get(name, ())]


def _cells(
    metrics: Report,
    name: str,
    tasks: Sequence[Task],
    delta: Mapping[str, float] | None,
    trust: Trust | None,
) -> Any:
    by_name = {task.name: task for task in tasks}
    papers = list(PUBLISHED.get(name, ()))
    trusted = [] if trust is None else [trust.errors]
    if trust is not None and trust.other is not None:
        trusted += [trust.differences, trust.difference_errors]
    for task, metric, value in rows(metrics, delta):
        beside = [
            published_value(name, row, by_name[task], metric) if task in by_name else None for row in papers
        ]
        known = [report.get(task, {}).get(metric) for report in trusted]
        yield [
            task,
            metric,
            f"{value:.4f}",
            *("" if each is None else f"{each:.4f}" for each in known + beside),
        ]


def terminal_table(
    title: str,
    metrics: Report,
    name: str,
    tasks: Sequence[Task],
    delta: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> Table:
    """All metrics for a terminal, with a column per published row."""
    table = Table(*_header(name, trust), title=title)
    for cells in _cells(metrics, name, tasks, delta, trust):
        table.add_row(*cells)
    return table


def markdown_table(
    metrics: Report,
    name: str,
    tasks: Sequence[Task],
    delta: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> str:
    """The same as Markdown."""
    return markdown(_header(name, trust), list(_cells(metrics, name, tasks, delta, trust)))


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    every = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in every)


def headlines(metrics: Report, tasks: Sequence[Task], protocol: Protocol) -> dict[str, float]:
    """The one metric of each task that tables print."""
    return {
        task.name: headline(metrics[task.name], task, protocol) for task in scored(metrics, tasks, protocol)
    }
