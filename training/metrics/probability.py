"""Saliency: maximal F-measure in the published protocols, and mean absolute error."""

import torch
from torch import Tensor

from training.metrics.base import TaskMetric
from training.metrics.boundaries import BAND, label_edges, near
from training.tasks import IGNORE_PROBABILITY, Task

FOREGROUND = 0.5
"""Labels above this are foreground."""
MTCP_THRESHOLDS = torch.linspace(0.2, 0.9, 15)
INVPT_THRESHOLDS = torch.arange(1, 20) / 20
INVPT_RELEASED_THRESHOLDS = INVPT_THRESHOLDS.logit()
"""The released code compares sigmoid(p) of what is a probability p already. In p its thresholds are therefore
below 0 (nine of them), then 0, .20, .41, .62, .85, and above 1."""
AVERAGED_THRESHOLDS = torch.arange(256) / 255


class ProbabilityMetric(TaskMetric):
    """Foreground is what is at least as probable as a threshold; each metric takes its best threshold.

    - ``maxF/mtcp``: precision and recall averaged over images, beta^2 = 1, `MTCP_THRESHOLDS`.
    - ``maxF/invpt``: precision and recall of all pixels pooled, beta^2 = 0.3, `INVPT_THRESHOLDS`: as InvPT
      and what follows it describe their measure.
    - ``maxF/invpt_released``: the same at `INVPT_RELEASED_THRESHOLDS`: as their code computes the published
      numbers.
    - ``maxF/averaged``: precision and recall averaged over images, beta^2 = 0.3, `AVERAGED_THRESHOLDS`: the
      usual one in the saliency literature.
    - ``MAE``: mean |p - label|, pooled; ``MAE/edges``: the same within `BAND` pixels of the outline of what
      is salient.

    An empty denominator of precision (nothing predicted) or recall (nothing salient) makes it 0.
    """

    mtcp: Tensor
    invpt: Tensor
    released: Tensor
    averaged: Tensor
    images: Tensor
    absolute: Tensor
    at_edges: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.add_state("mtcp", torch.zeros(2, len(MTCP_THRESHOLDS), dtype=torch.float64), "sum")
        self.add_state("invpt", torch.zeros(3, len(INVPT_THRESHOLDS), dtype=torch.float64), "sum")
        self.add_state("released", torch.zeros(3, len(INVPT_THRESHOLDS), dtype=torch.float64), "sum")
        self.add_state("averaged", torch.zeros(2, len(AVERAGED_THRESHOLDS), dtype=torch.float64), "sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), "sum")
        self.add_state("at_edges", torch.zeros(2, dtype=torch.float64), "sum")
        self.add_state("absolute", torch.zeros(2, dtype=torch.float64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add probabilities [B,H,W] and labels [B,1,H,W] in 0..1 (-1 ignore)."""
        labels = target[:, 0].float()
        known = labels > IGNORE_PROBABILITY
        band = near(label_edges(labels > FOREGROUND, known), BAND) & known
        error = ((output.float() - labels).abs() * band).double().sum()
        self.at_edges += torch.stack([error, band.sum().double()])
        for probability, truth in zip(output.flatten(1), target.flatten(1), strict=True):
            valid = truth > IGNORE_PROBABILITY
            if valid.any():
                self._add_image(probability[valid], truth[valid])

    def _add_image(self, probability: Tensor, truth: Tensor) -> None:
        self.images += 1
        self.absolute += torch.stack(
            [(probability - truth).abs().double().sum(), truth.new_tensor(len(truth))]
        )
        salient = truth > FOREGROUND
        self.mtcp += _precision_recall(_counts(probability, salient, MTCP_THRESHOLDS))
        self.averaged += _precision_recall(_counts(probability, salient, AVERAGED_THRESHOLDS))
        self.invpt += _counts(probability, salient, INVPT_THRESHOLDS)
        self.released += _counts(probability, salient, INVPT_RELEASED_THRESHOLDS)

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        if not self.images:
            return {}
        error, pixels = self.absolute.tolist()
        return {
            "maxF/mtcp": _max_f(self.mtcp / self.images, beta_squared=1.0),
            "maxF/invpt": _max_f(_precision_recall(self.invpt), beta_squared=0.3),
            "maxF/invpt_released": _max_f(_precision_recall(self.released), beta_squared=0.3),
            "maxF/averaged": _max_f(self.averaged / self.images, beta_squared=0.3),
            "MAE": error / pixels,
            **({"MAE/edges": float(self.at_edges[0] / self.at_edges[1])} if self.at_edges[1] else {}),
        }


def _counts(probability: Tensor, salient: Tensor, thresholds: Tensor) -> Tensor:
    """True positives, predicted and actual foreground pixels at each threshold, [3, len(thresholds)]."""
    passed = torch.bucketize(probability, thresholds.to(probability), right=True)
    hits = torch.bincount(passed[salient], minlength=len(thresholds) + 1)
    predicted = torch.bincount(passed, minlength=len(thresholds) + 1)
    hits, predicted = (counts.flip(0).cumsum(0).flip(0)[1:].double() for counts in (hits, predicted))
    return torch.stack([hits, predicted, salient.sum().expand_as(hits)])


def _precision_recall(counts: Tensor) -> Tensor:
    """[3, n] of `_counts` -> precision and recall [2, n]."""
    return counts[0] / counts[1:].clamp_min(1)


def _max_f(precision_recall: Tensor, beta_squared: float) -> float:
    precision, recall = precision_recall
    denominator = (beta_squared * precision + recall).clamp_min(torch.finfo(precision.dtype).tiny)
    return float(((1 + beta_squared) * precision * recall / denominator).max())
