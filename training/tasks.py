"""The dense tasks a network can predict, by name: what a head emits and what marks a missing label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
Kind = Literal["labels", "depth", "normals", "probability"]

IGNORE_LABEL = 255
"""Class id of a pixel without a label (semseg, parsing)."""
IGNORE_PROBABILITY = -1.0
"""Value of a saliency or edge pixel without a label."""
INVALID_DEPTH = 0.0
"""Depth (metres) or disparity of a pixel without a measurement; an invalid normal is (0, 0, 0)."""


@dataclass(frozen=True)
class LabelSpace:
    """Names and colours of the classes of a ``labels`` task, index = class id."""

    name: str
    labels: tuple[str, ...]
    palette: tuple[str, ...]
    people_only: bool = False
    """Parts of people: by the published protocols an image without any of them is not scored."""


def bit_palette(count: int) -> tuple[str, ...]:
    """Colours ``#rrggbb`` of the PASCAL VOC scheme: bits of the class id spread over the channels."""
    colours = []
    for index in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append("#{:02x}{:02x}{:02x}".format(*rgb))
    return tuple(colours)


def _space(name: str, labels: str, people_only: bool = False) -> LabelSpace:
    names = tuple(label.strip() for label in labels.split(","))
    return LabelSpace(name, names, bit_palette(len(names)), people_only)


LABEL_SPACES = {
    space.name: space
    for space in (
        _space(
            "voc",
            "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, "
            "dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor",
        ),
        _space(
            "fashion",
            "background, hair and hat, skin, upper clothes, dress, lower clothes, footwear, accessories",
            people_only=True,
        ),
        _space(
            "pascal_parts",
            "background, head, torso, upper arm, lower arm, upper leg, lower leg",
            people_only=True,
        ),
        _space(
            "nyu40",
            "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, "
            "blinds, desk, shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, "
            "refridgerator, television, paper, towel, shower curtain, box, whiteboard, person, night stand, "
            "toilet, sink, lamp, bathtub, bag, otherstructure, otherfurniture, otherprop",
        ),
        _space(
            "nyu13",
            "bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window",
        ),
        _space(
            "cityscapes",
            "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, "
            "sky, person, rider, car, truck, bus, train, motorcycle, bicycle",
        ),
        _space(
            "cityscapes_parts",
            "background, torso, head, arms, legs, windows, wheels, lights, license plate, chassis",
        ),
    )
}
"""Every label space by name; a new one is one entry."""


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


_KINDS: dict[str, Kind] = {
    "semseg": "labels",
    "depth": "depth",
    "normals": "normals",
    "saliency": "probability",
    "parsing": "labels",
    "edges": "probability",
}
_CHANNELS: dict[Kind, int] = {"depth": 1, "normals": 3, "probability": 1}

TASK_NAMES = tuple(_KINDS)
"""Task names in the order used everywhere: heads, bundles, responses."""


def entry(registry: Mapping[str, T], task: Task) -> T:
    """What ``registry`` has for ``task``: under its name where it differs from its kind, or its kind."""
    return registry[task.name] if task.name in registry else registry[task.kind]


def kind_of(name: str) -> Kind:
    """Kind of the task called ``name``, one of `TASK_NAMES`."""
    return _KINDS[name]


def make_task(name: str, space: str | None = None) -> Task:
    """The task called ``name``; ``space`` names the label space of a ``labels`` task.

    Raises:
        ValueError: an unknown task or label space, or a ``labels`` task without one.
    """
    if name not in _KINDS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(TASK_NAMES)}")
    kind = _KINDS[name]
    if kind != "labels":
        if space is not None:
            raise ValueError(f"task {name!r} predicts {kind}, it takes no label space (got {space!r})")
        return Task(name, kind, _CHANNELS[kind])
    if space not in LABEL_SPACES:
        raise ValueError(f"task {name!r} needs a label space out of {', '.join(LABEL_SPACES)}; got {space!r}")
    labels = LABEL_SPACES[space]
    return Task(name, kind, len(labels.labels), labels)
