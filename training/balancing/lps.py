"""The loss prioritisation scheme of MT-CP (Sec. 3.5)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights

Projection = Literal["log_weight", "log_loss", "none"]

TINY = 1e-8
"""Floor of losses before ratios are taken."""


def relative_progress(now: Tensor, before: Tensor) -> Tensor:
    """w~ [T]: each task's share of the total loss now over its share H epochs ago (Eq. 4, as intended).

    Eq. 4 as printed divides by L_i / L, which makes every weight exceed 1 and contradicts its text; the
    telescoped product of the intended ratios is (L_i^n / L_i^{n-H}) / (L^n / L^{n-H}). Above 1: a slow task.
    """
    now, before = now.clamp_min(TINY), before.clamp_min(TINY)
    return (now / before) / (now.sum() / before.sum())


def spread(weights: Tensor, kappa: float, floor: float) -> Tensor:
    """w' = mu + kappa (w - mu) (Eq. 5-6), guarded so that no weight falls below ``floor``.

    The guard lowers kappa to min(kappa, (mu - floor) / (mu - min w)), which keeps the mean and the order.
    Unguarded, kappa > 1 can push a weight below -1, where Eq. 3 has no logarithm.
    """
    mean = weights.mean()
    reach = mean - weights.min()
    if reach <= TINY:
        return weights
    limit = ((mean - floor) / reach).clamp_min(0)
    guarded = mean + limit.clamp_max(kappa) * (weights - mean)
    return guarded.maximum(mean.clamp_max(floor))  # where rounding of huge weights would undercut the floor


class LPS(Balancer):
    """Slow tasks first, on a common scale; updated once an epoch.

    Args:
        tasks: T, or the task names.
        kappa: the spread; 1 is no amplification.
        history: H, epochs over which progress is measured.
        floor: smallest weight before projection.
        projection: ``log_weight`` is Eq. 3, sum log(1 + w') L; ``log_loss`` is sum w' log(1 + L), here as the
            weights w' / (1 + L), which have the same gradient; ``none`` is sum w' L.
        prioritise: False keeps w' = 1 (with ``log_loss``, the paper's "log smoothing" row of Table 4).
        warmup_epochs: W, epochs at the start with w' = 1, whose losses are not taken for progress either:
            what falls first is not what is learned. Paper: 0.

    Raises:
        ValueError: ``kappa`` not positive, ``history`` below 1, ``floor`` outside [0, 1), an unknown
            ``projection``, or ``warmup_epochs`` negative.
    """

    epochs: Tensor
    past: Tensor
    weights: Tensor

    def __init__(
        self,
        tasks: int | Sequence[str],
        kappa: float = 2.5,
        history: int = 3,
        floor: float = 0.05,
        projection: Projection = "log_weight",
        prioritise: bool = True,
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__(tasks)
        if kappa <= 0:
            raise ValueError(f"kappa must be positive, got {kappa}; 1 does not amplify the spread")
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be in [0, 1), got {floor}; 1 is the mean weight")
        if history < 1:
            raise ValueError(f"history must be at least 1 epoch, got {history}")
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must not be negative, got {warmup_epochs}")
        if projection not in get_args(Projection):
            raise ValueError(f"projection must be one of {get_args(Projection)}, got {projection!r}")
        self.kappa, self.floor = kappa, floor
        self.projection, self.prioritise = projection, prioritise
        self.warmup_epochs = warmup_epochs
        self.first_epoch = max(1, warmup_epochs) + 1 if prioritise else 0
        self.register_buffer("epochs", torch.tensor(0))
        self.register_buffer("past", torch.full((history + 1, self.tasks), torch.nan))
        self.register_buffer("weights", torch.ones(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """The weights of the last :meth:`end_epoch`, projected."""
        if self.projection == "log_weight":
            return TaskWeights(torch.log1p(self.weights))
        if self.projection == "log_loss":
            return TaskWeights(self.weights / (1 + observation.losses.clamp_min(0)))
        return TaskWeights(self.weights)

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Push the epoch's raw mean losses [T] and recompute the weights for the next epoch.

        In the warm-up the weights stay 1, and progress counts from its last epoch on. Epochs not there yet
        shorten the history. A task without a loss now or then keeps weight 1 and is left out of the totals.
        """
        self.epochs += 1
        if self.epochs < self.warmup_epochs:
            return
        self.past = torch.cat([self.past[1:], mean_losses.detach().to(self.past)[None]])
        if not self.prioritise:
            return
        known = self.past[~self.past.isnan().all(1)]
        if len(known) < 2:
            return
        now, before = known[-1], known[0]
        both = now.isfinite() & before.isfinite()
        weights = torch.ones_like(self.weights)
        if both.any():
            weights[both] = spread(relative_progress(now[both], before[both]), self.kappa, self.floor)
        self.weights = weights
