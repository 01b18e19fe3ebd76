"""Surface normals: angles between prediction and label."""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.geometry import degrees_between
from training.metrics.base import TaskMetric
from training.tasks import Task

BINS_PER_DEGREE = 100
THRESHOLDS = (11.25, 22.5, 30.0)
"""Degrees; those of Fouhey et al., "Data-Driven 3D Primitives for Single Image Understanding"."""


class NormalsMetric(TaskMetric):
    """Angles in degrees over all pixels of known normal, pooled over the split.

    - ``mErr/mtcp``: mean of arccos p.g; ``mErr/invpt``: mean of 2 atan2(|p - g|, |p + g|). They agree but
      for rounding where p and g have unit length, which both are given here: labels from 8-bit files lack it.
    - ``median``: exact to 1/`BINS_PER_DEGREE` degree, from a histogram.
      A vector that is not finite counts as opposite there, and makes ``mErr`` NaN.
    - ``within_11.25``, ``within_22.5``, ``within_30``: share of pixels below that angle, 0 to 1.
    """

    angle: Tensor
    histogram: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.add_state("angle", torch.zeros(2, dtype=torch.float64), "sum")
        self.add_state("histogram", torch.zeros(180 * BINS_PER_DEGREE, dtype=torch.int64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add normals [B,H,W,3] and labels [B,3,H,W] ((0,0,0) invalid)."""
        truth = target.movedim(1, -1)
        valid = (truth != 0).any(dim=-1)
        p, g = F.normalize(output[valid].double(), dim=-1), F.normalize(truth[valid].double(), dim=-1)
        by_product = (p * g).sum(dim=-1).clamp(-1, 1).arccos().rad2deg()
        by_chords = degrees_between(p, g, -1)
        self.angle += torch.stack([by_product.sum(), by_chords.sum()])
        bins = (by_chords.nan_to_num(180) * BINS_PER_DEGREE).long().clamp_max(len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        pixels = int(self.histogram.sum())
        if not pixels:
            return {}
        below = self.histogram.cumsum(dim=0)
        middle = int(torch.searchsorted(below, (pixels + 1) // 2))
        metrics = {
            "mErr/mtcp": self.angle[0].item() / pixels,
            "mErr/invpt": self.angle[1].item() / pixels,
            "median": (middle + 0.5) / BINS_PER_DEGREE,
        }
        for degrees in THRESHOLDS:
            metrics[f"within_{degrees:g}"] = int(below[round(degrees * BINS_PER_DEGREE) - 1]) / pixels
        return metrics
