"""Targets: the sets of classes that labels of several spaces stand for.

A source labels in its own space, and each of its classes is a set of the network's: VOC's background is
everything that is not one of its twenty objects. So what training sees is not a class id but a *target id*, a
row of a table of sets: first the network's own classes, each a set of one, then the classes of each mapped
space. Target ids of all spaces fit into the uint8 of one label map, and 255 marks a missing label in all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IGNORE_LABEL = 255
"""Id of a pixel without a label, whatever the space."""
SHOWN = 0.01
"""Share of an image's labelled pixels from which a `Context` counts as seen."""

Ids = NDArray[np.uint8]
Sets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Narrowed:
    """What classes of a source stand for in images that show one of the classes ``shows``: ids and sets."""

    shows: tuple[int, ...]
    sets: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Mapped:
    """The classes of another space as sets of class ids: ``sets`` in the order of its ``labels``."""

    space: str
    labels: tuple[str, ...]
    sets: Sets
    narrowed: tuple[Narrowed, ...] = ()


@dataclass(frozen=True, eq=False)
class Context:
    """A table for images that show one of the classes ``shows``; see `Part.target_ids`."""

    shows: NDArray[np.int64]
    table: Ids


@dataclass(frozen=True, eq=False)
class Part:
    """The targets that come from one space, whose classes are ``labels``.

    ``table`` [256] is the target id of each of its class ids and ``classes`` [256] the way back, both 255
    where there is none; ``members`` bool [n, K] are the sets of its n classes. A ``partition`` has each class
    of the network in exactly one of its own: then probabilities of the network, summed, are probabilities in
    this space, and it can be scored in it.
    """

    labels: tuple[str, ...]
    table: Ids
    classes: Ids
    members: NDArray[np.bool_]
    contexts: tuple[Context, ...] = ()

    @property
    def partition(self) -> bool:
        """Whether each class of the network belongs to exactly one class of this space."""
        return bool((self.members.sum(0) == 1).all())

    def target_ids(self, ids: NDArray[np.integer]) -> Ids:
        """The target ids [H, W] of an image's class ids [H, W] in this space, 255 where they are 255."""
        if self.contexts:
            counts = np.bincount(ids.ravel(), minlength=256)[:IGNORE_LABEL]
            for context in self.contexts:
                if counts[context.shows].max() > SHOWN * max(1, counts.sum()):
                    return np.take(context.table, ids)
        return np.take(self.table, ids)


@dataclass(frozen=True, eq=False)
class Targets:
    """All targets of a space with K classes.

    Attributes:
        members: bool [S, K], the set of classes of each target id; the first K rows are single classes.
        parts: by name of a space, its targets; the first is the space itself.
        classes: [256], each target id as the one that it is without contexts, all else as itself.
        own: [256], for target ids of spaces that are no partition and of the space itself the class id where
            the set has just one, else 255: the labels to score in the space itself.
    """

    members: NDArray[np.bool_]
    parts: Mapping[str, Part]
    classes: Ids
    own: Ids

    @property
    def plain(self) -> bool:
        """Whether a target id is simply a class id: no other space is mapped."""
        return len(self.parts) == 1

    @property
    def scored(self) -> tuple[str, ...]:
        """The mapped spaces that the network can be scored in by summing its probabilities."""
        return tuple(name for name, part in list(self.parts.items())[1:] if part.partition)

    def without(self, class_id: int) -> NDArray[np.bool_]:
        """Bool [256]: the target ids that surely are not ``class_id``; a missing label is not sure."""
        sure = np.zeros(256, np.bool_)
        sure[: len(self.members)] = ~self.members[:, class_id]
        return sure


def build_targets(name: str, labels: tuple[str, ...], mapped: Sequence[Mapped]) -> Targets:
    """The targets of the space ``name`` with these classes.

    Raises:
        ValueError: more sets than a uint8 map can name.
    """
    classes = len(labels)
    rows: list[tuple[int, ...]] = [(index,) for index in range(classes)]
    layout = [_Rows(name, labels, list(range(classes)))]
    for other in mapped:
        found = _Rows(other.space, other.labels, list(range(len(rows), len(rows) + len(other.sets))))
        rows += other.sets
        for narrowed in other.narrowed:
            changed = list(found.ids)
            for class_id, ids in narrowed.sets.items():
                changed[class_id] = len(rows)
                rows.append(ids)
            found.contexts.append((narrowed.shows, changed))
        layout.append(found)
    if len(rows) > IGNORE_LABEL:
        raise ValueError(f"label space {name!r}: {len(rows)} targets, a label map holds {IGNORE_LABEL}")
    members = _members(rows, classes)
    parts = {found.space: found.part(members) for found in layout}
    own = np.full(256, IGNORE_LABEL, np.uint8)
    for found in layout:
        if found.space == name or not parts[found.space].partition:
            single = [target for target in found.ids if len(rows[target]) == 1]
            own[single] = [rows[target][0] for target in single]
    plain = np.arange(256, dtype=np.uint8)
    for part in parts.values():
        known = part.classes != IGNORE_LABEL
        plain[known] = part.table[part.classes[known]]
    return Targets(members, parts, plain, own)


@dataclass
class _Rows:
    """The target id of each class of a space, and again for each context, whose first ids say what to see."""

    space: str
    labels: tuple[str, ...]
    ids: list[int]
    contexts: list[tuple[tuple[int, ...], list[int]]] = field(default_factory=list)

    def part(self, members: NDArray[np.bool_]) -> Part:
        back = np.full(256, IGNORE_LABEL, np.uint8)
        for ids in (self.ids, *(changed for _, changed in self.contexts)):
            back[ids] = np.arange(len(ids))
        contexts = (Context(np.array(shows), _table(changed)) for shows, changed in self.contexts)
        return Part(self.labels, _table(self.ids), back, members[self.ids], tuple(contexts))


def _members(sets: Sequence[tuple[int, ...]], classes: int) -> NDArray[np.bool_]:
    members = np.zeros((len(sets), classes), np.bool_)
    for row, ids in zip(members, sets, strict=True):
        row[list(ids)] = True
    return members


def _table(ids: Sequence[int]) -> Ids:
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[: len(ids)] = ids
    return table
