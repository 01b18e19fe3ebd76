"""How much a multi-task network gains on networks of one task each."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from training.tasks import Task, entry

Protocol = Literal["mtcp", "invpt"]

HEADLINE: dict[str, tuple[str, bool]] = {
    "labels": ("mIoU", True),
    "depth": ("rmse", False),
    "normals": ("mErr", False),
    "probability": ("maxF", True),
    "edges": ("odsF/pascal", True),
}
"""The metric that stands for a kind of task, or a task by name, and whether more of it is better."""


def headline(metrics: Mapping[str, float], task: Task, protocol: Protocol) -> float:
    """The metric of ``task`` that tables print, out of its entry of `Evaluation.compute`."""
    name, _ = entry(HEADLINE, task)
    return metrics[name] if name in metrics else metrics[f"{name}/{protocol}"]


def scored(
    metrics: Mapping[str, Mapping[str, float]], tasks: Sequence[Task], protocol: Protocol
) -> list[Task]:
    """The tasks with a `headline` in ``metrics``: depth whose labels are all far has none of ``mtcp``."""
    found = []
    for task in tasks:
        name, _ = entry(HEADLINE, task)
        if {name, f"{name}/{protocol}"} & metrics.get(task.name, {}).keys():
            found.append(task)
    return found


def gain_over(
    one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]], tasks: Sequence[Task]
) -> float | None:
    """By how many per cent ``one`` is better than ``other``: `delta_mtl` of protocol ``mtcp`` over the tasks
    that have its metrics; None: there are none."""
    compared = scored(one, tasks, "mtcp")
    return delta_mtl(one, other, compared, "mtcp") if compared else None


def delta_mtl(
    multi: Mapping[str, Mapping[str, float]],
    single: Mapping[str, Mapping[str, float]],
    tasks: Sequence[Task],
    protocol: Protocol,
) -> float:
    """Mean relative gain over single-task networks, in per cent; positive is better.

    Maninis et al., "Attentive Single-Tasking of Multiple Tasks" (arXiv 1904.08918). Infinite where a
    single-task metric is 0 and the other is not.

    Args:
        multi: `Evaluation.compute` of the multi-task network.
        single: the same of the single-task networks, merged by task name.
        tasks: the tasks to average over.
        protocol: whose depth, normals and saliency metrics to compare.

    Raises:
        KeyError: one of the two has no metrics for a task.
    """
    gains = []
    for task in tasks:
        base = headline(single[task.name], task, protocol)
        change = headline(multi[task.name], task, protocol) - base
        gain = change / base if base else math.copysign(math.inf, change) if change else 0.0
        gains.append(gain if entry(HEADLINE, task)[1] else -gain)
    return 100 * sum(gains) / len(gains)
