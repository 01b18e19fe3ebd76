"""Whether a confidence means what it says: reliability, calibration error, telling right from wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

BINS = 10
"""Of the reliability curve: equal parts of 0 to 1."""
FINE = 100
"""Parts of a bin, within which confidences count as equal where they are ranked."""
COVERAGE = 0.8
"""Share of the pixels that are kept, the surest first, for ``risk@80%``."""
PREFIX = "confidence/"
"""Of the names of all these metrics, so that they may stand among others."""
_CURVE = f"{PREFIX}bin"


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels whose confidence is in one part of 0 to 1: its mean, how many are right, the share of all."""

    confidence: float
    accuracy: float
    share: float


class ConfidenceMetric(Metric):  # type: ignore[misc]
    """The confidence of one task against where its map is right, over all pixels that have a label, pooled.

    After `PREFIX`:

    - ``accuracy``: share of pixels that are right; ``mean``: of what is said of them.
    - ``ECE``: expected calibration error, the mean over pixels of |confidence - accuracy| of their one of
      `BINS` bins (Naeini et al. 2015; Guo et al., arXiv 1706.04599, Eq. 3).
    - ``AUROC``: how often a right pixel is surer than a wrong one, ties as a half; absent where all are one.
    - ``risk@80%``: share of wrong pixels among the surest `COVERAGE` (selective risk, Geifman and El-Yaniv,
      arXiv 1705.08500); without any knowledge it is 1 - accuracy.
    - ``binN/...``: the fields of `ReliabilityBin` of bin N, where it has pixels; see `curve`.
    """

    full_state_update = False
    counts: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2, BINS * FINE, dtype=torch.int64), "sum")
        self.add_state("sums", torch.zeros(BINS, dtype=torch.float64), "sum")

    def update(self, confidence: Tensor, right: Tensor, known: Tensor) -> None:
        """Add confidences [B,H,W] in 0..1, and what `training.metrics.correctness.judge` says."""
        sure, truth = confidence[known].float(), right[known].long()
        fine = (sure * BINS * FINE).long().clamp(0, BINS * FINE - 1)
        self.counts += torch.bincount(fine + truth * BINS * FINE, minlength=2 * BINS * FINE).view(2, -1)
        self.sums += torch.zeros_like(self.sums).index_add_(0, fine // FINE, sure.double())

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        wrong, right = self.counts.double()
        pixels = wrong.sum() + right.sum()
        if not pixels:
            return {}
        binned = (wrong + right).view(BINS, FINE).sum(1)
        accuracies, confidences = right.view(BINS, FINE).sum(1), self.sums
        metrics = {
            "accuracy": right.sum() / pixels,
            "mean": self.sums.sum() / pixels,
            "ECE": (confidences - accuracies).abs().sum() / pixels,
            "risk@80%": _risk(wrong, right, COVERAGE),
        }
        if wrong.any() and right.any():
            below = wrong.cumsum(0) - wrong / 2
            metrics["AUROC"] = (right * below).sum() / (wrong.sum() * right.sum())
        for number in range(BINS):
            if binned[number]:
                part = ReliabilityBin(
                    float(confidences[number] / binned[number]),
                    float(accuracies[number] / binned[number]),
                    float(binned[number] / pixels),
                )
                metrics |= {f"bin{number}/{key}": value for key, value in asdict(part).items()}
        return {PREFIX + name: float(value) for name, value in metrics.items()}


def _risk(wrong: Tensor, right: Tensor, coverage: float) -> Tensor:
    """Share of wrong pixels among the surest ``coverage``; of a part that is cut, in proportion."""
    wrong, every = wrong.flip(0), (wrong + right).flip(0)
    wanted = coverage * every.sum()
    before = every.cumsum(0) - every
    taken = (wanted - before).clamp(min=0).minimum(every)
    return (wrong * taken / every.clamp_min(1)).sum() / wanted


def curve(metrics: Mapping[str, float]) -> list[ReliabilityBin]:
    """The reliability curve among the metrics of a task, from the least sure on; empty without one."""
    found = []
    for number in range(BINS):
        names = {key: f"{_CURVE}{number}/{key}" for key in ReliabilityBin.__dataclass_fields__}
        if names["share"] in metrics:
            found.append(ReliabilityBin(**{key: metrics[name] for key, name in names.items()}))
    return found


def without_curve(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a task but for those of `curve`."""
    return {name: value for name, value in metrics.items() if not name.startswith(_CURVE)}
