"""How far the views of an image agree on its maps: what stands for a confidence.

A model that contradicts itself on a mirrored or enlarged image is wrong in at least one view; one that agrees
may still be wrong everywhere. So this confidence is a filter, not a probability of being right. A pixel keeps
its label where, over the views that cover it,

- ``labels``: the share of views that give the most frequent class is at least the confidence;
- ``depth``: the standard deviation is at most 1 - confidence of the mean;
- ``normals``: the mean of the unit vectors is at least the confidence long;
- ``probability``: mean p, or 1 - p, is at least the confidence, and so is the share of views on that side
  of 1/2.

Maps are stacked by view: [n, H, W] or, of normals, [n, H, W, 3], with ``covered`` bool [n, H, W].
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, TaskSpec
from mtcp_serve.kinds.base import Map

Mask = NDArray[np.bool_]


def agree(task: TaskSpec, maps: Map, covered: Mask, confidence: float) -> tuple[Map, Mask]:
    """The map of all views together [H, W] or [H, W, 3], and where they agree well enough [H, W]."""
    return AGREEMENTS[task.kind](task, maps, covered, confidence)


def _mean(maps: Map, covered: Mask) -> NDArray[np.float32]:
    return np.asarray((maps * covered).sum(0) / covered.sum(0), np.float32)


def _labels(task: LabelsTask, maps: Map, covered: Mask, confidence: float) -> tuple[Map, Mask]:
    votes = np.zeros((256, *maps.shape[1:]), np.uint8)
    for view, seen in zip(maps, covered, strict=True):
        rows, columns = np.nonzero(seen & (view != task.ignore_index))
        votes[view[rows, columns], rows, columns] += 1
    share = votes.max(0) / covered.sum(0)
    return votes.argmax(0).astype(np.uint8), share >= confidence


def _depth(task: DepthTask, maps: Map, covered: Mask, confidence: float) -> tuple[Map, Mask]:
    if not task.metric:  # the scale of each view is free: bring it to that of the first
        ratios = [
            np.median((maps[0] / np.maximum(view, 1e-6))[seen])
            for view, seen in zip(maps, covered, strict=True)
        ]
        maps = maps * np.array(ratios, np.float32)[:, None, None]
    mean = _mean(maps, covered)
    spread = np.sqrt(_mean(np.square(maps - mean), covered))
    known = ((maps > 0) | ~covered).all(0)
    return mean, known & (spread <= (1 - confidence) * mean)


def _normals(task: TaskSpec, maps: Map, covered: Mask, confidence: float) -> tuple[Map, Mask]:
    mean = (maps * covered[..., None]).sum(0) / covered.sum(0)[..., None]
    length = np.linalg.norm(mean, axis=-1)
    return mean / np.maximum(length, 1e-6)[..., None], length >= confidence


def _probability(task: TaskSpec, maps: Map, covered: Mask, confidence: float) -> tuple[Map, Mask]:
    mean = _mean(maps, covered)
    above = ((maps > 0.5) & covered).sum(0) / covered.sum(0)
    share = np.where(mean > 0.5, above, 1 - above)
    return mean, np.minimum(np.maximum(mean, 1 - mean), share) >= confidence


AGREEMENTS: dict[str, Callable[[Any, Map, Mask, float], tuple[Map, Mask]]] = {
    "labels": _labels,
    "depth": _depth,
    "normals": _normals,
    "probability": _probability,
}
"""How views agree on each kind of task; of others there are no pseudo-labels."""
