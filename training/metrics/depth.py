"""Depth: errors in metres as published, relative errors, and both after scale and shift."""

import torch
from torch import Tensor

from training.metrics.base import TaskMetric
from training.metrics.boundaries import depth_edges, edge_counts, edge_f
from training.metrics.correctness import FACTOR
from training.tasks import INVALID_DEPTH, Task

MTCP_FARTHEST = 6.5535
"""Metres; the code of the MT-CP paper leaves out ground truth at or beyond this."""
NEAREST = 1e-3
"""Metres; nearer predictions, which an alignment may make negative, count as this."""
_ERRORS = ("pixels", "square", "relative", "within")


class DepthMetric(TaskMetric):
    """Errors over all pixels of known depth, pooled over the split.

    - ``rmse/mtcp``: metres, without ground truth from `MTCP_FARTHEST` on; ``rmse/invpt``: metres, all pixels.
    - ``absrel``: mean |d - g| / g. ``delta<1.25``: share of pixels with max(d/g, g/d) < 1.25.
    - ``rmse/aligned``, ``absrel/aligned``, ``delta<1.25/aligned``: the same over all pixels after a scale and
      a shift for each image, least squares *in depth*, since the network predicts metres: what is left is the
      error of shape alone.
    - ``edgeF``: F-measure of the edges of depth, see `training.metrics.boundaries`.
    """

    edges: Tensor
    near: Tensor
    plain: Tensor
    aligned: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.add_state("edges", torch.zeros(4, dtype=torch.float64), "sum")
        for name in ("near", "plain", "aligned"):
            self.add_state(name, torch.zeros(len(_ERRORS), dtype=torch.float64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add depth [B,H,W] and labels [B,1,H,W], metres (0 invalid)."""
        metres, known = target[:, 0].float(), target[:, 0] > INVALID_DEPTH
        found = depth_edges(output.float(), torch.ones_like(known))
        self.edges += edge_counts(found, depth_edges(metres, known), known)
        depth, truth = output.flatten(1).double(), target.flatten(1).double()
        valid = truth > INVALID_DEPTH
        aligned = _align(depth, truth, valid)
        self.near += _errors(depth, truth, valid & (truth < MTCP_FARTHEST))
        self.plain += _errors(depth, truth, valid)
        self.aligned += _errors(aligned, truth, valid)

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        near, plain, aligned = map(_means, (self.near, self.plain, self.aligned))
        metrics = {"rmse/mtcp": near["square"] ** 0.5} if near else {}
        if plain:
            metrics |= {
                "rmse/invpt": plain["square"] ** 0.5,
                "absrel": plain["relative"],
                "delta<1.25": plain["within"],
                "rmse/aligned": aligned["square"] ** 0.5,
                "absrel/aligned": aligned["relative"],
                "delta<1.25/aligned": aligned["within"],
            }
            edges = edge_f(self.edges)
            metrics |= {} if edges is None else {"edgeF": edges}
        return metrics


class DisparityMetric(TaskMetric):
    """Errors of inverse depth against labels known up to scale and shift, pooled over the split.

    The reciprocal of the prediction is brought to the label of each image by the scale and shift of least
    squares, in the units of the label:

    - ``abs/aligned``: mean |d - g|. ``absrel/aligned``: mean |d - g| / g.
    - ``delta<1.25/aligned``: share of pixels with max(d/g, g/d) < 1.25.
    """

    sums: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        del task
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add depth [B,H,W], metres or any unit, and disparity [B,1,H,W], larger is nearer (0 invalid)."""
        truth = target.flatten(1).double()
        valid = truth > INVALID_DEPTH
        inverse = output.flatten(1).double().clamp_min(NEAREST).reciprocal()
        found, truth = _align(inverse, truth, valid)[valid], truth[valid]
        error = (found - truth).abs()
        within = torch.maximum(found, truth) < FACTOR * torch.minimum(found, truth)
        self.sums += torch.stack([valid.sum(), error.sum(), (error / truth).sum(), within.sum()])

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        pixels, *sums = self.sums.tolist()
        names = ("abs/aligned", "absrel/aligned", "delta<1.25/aligned")
        return {name: value / pixels for name, value in zip(names, sums, strict=True)} if pixels else {}


def _errors(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Sums of `_ERRORS` over the valid pixels."""
    depth, truth = depth[valid].clamp_min(NEAREST), truth[valid]
    error = (depth - truth).abs()
    within = torch.maximum(depth / truth, truth / depth) < FACTOR
    return torch.stack([valid.sum(), error.square().sum(), (error / truth).sum(), within.sum()])


def _means(sums: Tensor) -> dict[str, float]:
    pixels, *rest = sums.tolist()
    return {name: value / pixels for name, value in zip(_ERRORS[1:], rest, strict=True)} if pixels else {}


def _align(depth: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """``scale * depth + shift`` closest to the truth, row by row; a constant row becomes the mean truth."""
    weight = valid / valid.sum(dim=1, keepdim=True).clamp_min(1)
    mean, mean_truth = ((values * weight).sum(dim=1, keepdim=True) for values in (depth, truth))
    centred = depth - mean
    variance = (centred.square() * weight).sum(dim=1, keepdim=True)
    covariance = (centred * (truth - mean_truth) * weight).sum(dim=1, keepdim=True)
    scale = torch.where(variance > 0, covariance / variance, 0.0)
    return scale * centred + mean_truth
