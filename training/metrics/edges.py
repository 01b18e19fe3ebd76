"""Edges: the F-measure at the best threshold of the data set (odsF), in the two tolerances of the field."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, map_coordinates
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import cKDTree
from skimage.morphology import thin
from torch import Tensor

from training.metrics.base import TaskMetric
from training.tasks import IGNORE_PROBABILITY, Task

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

THRESHOLDS = np.arange(1, 100) / 100
TOLERANCES = {"pascal": 0.0075, "nyud": 0.011}
"""How far a matched edge may lie from its label, as a share of the image's diagonal, by data set."""
_SMOOTHING = 4
"""Radius in pixels of the triangle filter before the direction of an edge is measured."""
_MARGIN = 1.01
"""A pixel is a maximum if ``_MARGIN`` times its value is not below its neighbours' across the edge."""


class EdgeMetric(TaskMetric):
    """Precision and recall of edge pixels pooled over the split, F at the best of 99 thresholds.

    - ``odsF/pascal``, ``odsF/nyud``: tolerance 0.0075 and 0.011 of the diagonal. Both published protocols
      (``mtcp`` and ``invpt``) use the tolerance of the data set, so take the one that belongs to the labels.

    A probability map first loses what is no maximum across the edge, by the direction of the smoothed map as
    in Dollar and Zitnick, "Fast Edge Detection Using Structured Forests" (arXiv 1406.5549); at each threshold
    the rest is thinned to one pixel and matched one to one with the label, which is thinned too.

    The published values come from the MATLAB and C++ code of the Berkeley benchmark (``correspondPixels``).
    It solves a minimum-cost assignment in which a pixel without a partner costs far more than any distance;
    here the number of pairs within the tolerance is maximised outright (a maximum flow): the same count, but
    for the random sparse outlier edges of theirs, and no say in which pairs are made. Its F is the best
    on the curve interpolated between thresholds, ours the best at a threshold. Maps are scored at the size of
    the labels that are given, the published ones at the size of the image. Berkeley's own matching, run on
    six maps, differs by .002.
    """

    matched: Tensor
    predicted: Tensor
    labelled: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        del task
        counts = len(THRESHOLDS)
        self.add_state("matched", torch.zeros(len(TOLERANCES), counts, dtype=torch.int64), "sum")
        self.add_state("predicted", torch.zeros(counts, dtype=torch.int64), "sum")
        self.add_state("labelled", torch.zeros(2, dtype=torch.int64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add probabilities [B,H,W] and labels [B,1,H,W], 0 or 1 (-1 ignore); done on the CPU."""
        for probability, truth in zip(output.double().cpu().numpy(), target[:, 0].cpu().numpy(), strict=True):
            valid = truth > IGNORE_PROBABILITY
            if valid.any():
                self._add_image(np.where(valid, probability, 0.0), thin(truth > 0.5))

    def _add_image(self, probability: Map, truth: Mask) -> None:
        maxima = keep_maxima(probability)
        edges = maxima > 0
        rows = np.cumsum(edges).reshape(edges.shape) - 1
        pairs = [candidates(edges, truth, share) for share in TOLERANCES.values()]
        predicted, matched = np.zeros(len(THRESHOLDS), int), np.zeros((len(TOLERANCES), len(THRESHOLDS)), int)
        for column, threshold in enumerate(THRESHOLDS):
            found = rows[thin(maxima >= threshold)]
            predicted[column] = found.size
            matched[:, column] = [count_matches(pair[found]) for pair in pairs]
        self.labelled += torch.tensor([1, np.count_nonzero(truth)], device=self.labelled.device)
        self.predicted += torch.from_numpy(predicted).to(self.predicted.device)
        self.matched += torch.from_numpy(matched).to(self.matched.device)

    def compute(self) -> dict[str, float]:
        """The metrics of the images seen so far."""
        images, labelled = self.labelled.tolist()
        if not images:
            return {}
        f_measures = 2 * self.matched.double() / (self.predicted + labelled).clamp_min(1)
        best = f_measures.amax(dim=1).tolist()
        return {f"odsF/{name}": value for name, value in zip(TOLERANCES, best, strict=True)}


def keep_maxima(probability: Map) -> Map:
    """``probability`` [H, W] with 0 where a neighbour one pixel across the edge is more probable."""
    direction = _across(_smooth(probability))
    rows, columns = np.indices(probability.shape)
    highest = np.zeros_like(probability)
    for side in (-1, 1):
        places = (rows + side * np.sin(direction), columns + side * np.cos(direction))
        highest = np.maximum(highest, map_coordinates(probability, places, order=1, mode="nearest"))
    return np.where(probability * _MARGIN >= highest, probability, 0.0)


def _smooth(values: Map) -> Map:
    rise = np.arange(1, _SMOOTHING + 1)
    kernel = np.concatenate([rise, [_SMOOTHING + 1], rise[::-1]]) / (_SMOOTHING + 1) ** 2
    for axis in (0, 1):
        values = convolve1d(values, kernel, axis=axis, mode="reflect")
    return values


def _across(values: Map) -> Map:
    """Angle (0 right, positive down) of the greatest curvature of a map: the direction across an edge."""
    down, right = np.gradient(values)
    (yy, xy), xx = np.gradient(down), np.gradient(right, axis=1)
    side = np.where(xx + yy > 0, 1, -1)  # of the two eigenvalues of the Hessian, the larger in magnitude
    return np.asarray(0.5 * np.arctan2(2 * side * xy, side * (xx - yy)))


def candidates(edges: Mask, truth: Mask, share: float) -> Any:
    """Which pixels of ``truth`` (columns) lie within ``share`` of the diagonal of each of ``edges`` (rows).

    Pixels are numbered row by row through the image; a sparse array of ones.
    """
    points, labels = np.argwhere(edges), np.argwhere(truth)
    near = cKDTree(points).query_ball_tree(cKDTree(labels), share * np.hypot(*edges.shape))
    starts = np.cumsum([0, *map(len, near)])
    columns = np.fromiter((column for row in near for column in row), np.int32, starts[-1])
    return csr_array((np.ones(len(columns), np.int8), columns, starts), shape=(len(points), len(labels)))


def count_matches(pairs: Any) -> int:
    """Size of the largest set of pairs (ones of a sparse array) no two of which share a row or a column."""
    rows, columns = pairs.shape
    # one unit from a source through row, pair and column to a sink; scipy's own matching can take for ever
    starts = np.concatenate([[0], rows + pairs.indptr, rows + pairs.nnz + np.arange(1, columns + 1)])
    targets = [np.arange(1, rows + 1), rows + 1 + pairs.indices, np.full(columns, rows + columns + 1)]
    ends = np.concatenate([starts, starts[-1:]]).astype(np.int32)
    edges = np.concatenate(targets).astype(np.int32)
    size = rows + columns + 2
    network = csr_array((np.ones(len(edges), np.int32), edges, ends), shape=(size, size))
    return int(maximum_flow(network, 0, size - 1, method="dinic").flow_value)
