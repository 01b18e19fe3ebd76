"""The dense tasks a network can predict, by name: what a head emits and what marks a missing label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from training.label_spaces import LABEL_SPACES, LabelSpace

T = TypeVar("T")
Kind = str
"""Name of a kind of task, of `mtcp_serve.kinds.KINDS`; CONTRIBUTING.md says what a new one needs here."""

IGNORE_PROBABILITY = -1.0
"""Value of a saliency or edge pixel without a label."""
INVALID_DEPTH = 0.0
"""Depth (metres) or disparity of a pixel without a measurement; an invalid normal is (0, 0, 0)."""


@dataclass(frozen=True)
class Task:
    """A task as the network sees it.

    ``channels`` is the number of maps its head emits: classes for ``labels``, 1 for ``depth`` (metres) and
    ``probability`` (a logit), 3 for ``normals``.
    """

    name: str
    kind: Kind
    channels: int
    space: LabelSpace | None = None


TASKS: dict[str, Kind] = {
    "semseg": "labels",
    "depth": "depth",
    "normals": "normals",
    "saliency": "probability",
    "parsing": "labels",
    "edges": "probability",
}
"""The kind of each task, in the order used everywhere: heads, bundles, responses."""
CHANNELS: dict[Kind, int] = {"depth": 1, "normals": 3, "probability": 1}
"""Maps that the head of a task of each kind emits; of ``labels`` it is one a class."""

TASK_NAMES = TASKS.keys()


def entry(registry: Mapping[str, T], task: Task) -> T:
    """What ``registry`` has for ``task``: under its name where it differs from its kind, or its kind."""
    return registry[task.name] if task.name in registry else registry[task.kind]


def kind_of(name: str) -> Kind:
    """Kind of the task called ``name``, one of `TASK_NAMES`."""
    return TASKS[name]


def make_task(name: str, space: str | None = None, kept: Mapping[str, LabelSpace] = {}) -> Task:
    """The task called ``name``; ``space`` names the label space of a ``labels`` task.

    Of the spaces in ``kept``, by name or path, no file is read.

    Raises:
        ValueError: an unknown task or label space, or a ``labels`` task without one.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(TASK_NAMES)}")
    kind = TASKS[name]
    if kind != "labels":
        if space is not None:
            raise ValueError(f"task {name!r} predicts {kind}, it takes no label space (got {space!r})")
        return Task(name, kind, CHANNELS[kind])
    if space is None or (space not in kept and space not in LABEL_SPACES):
        raise ValueError(f"task {name!r} needs a label space out of {', '.join(LABEL_SPACES)}; got {space!r}")
    labels = kept.get(space) or LABEL_SPACES[space]
    return Task(name, kind, len(labels.labels), labels)
