"""Dynamic weight average (Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights


class DWA(Balancer):
    """w = T softmax(r / tau), r_i = L_i^{n-1} / L_i^{n-2} of epoch means (Eq. 7 there); 1 for two epochs.

    A task without a loss in one of the two epochs keeps weight 1 and is left out of the softmax.

    Raises:
        ValueError: ``temperature`` (tau) not positive.
    """

    first_epoch = 2
    past: Tensor
    weights: Tensor

    def __init__(self, tasks: int | Sequence[str], temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.register_buffer("past", torch.full((self.tasks,), torch.nan))
        self.register_buffer("weights", torch.ones(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """The weights of the last :meth:`end_epoch`."""
        return TaskWeights(self.weights)

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Compare the epoch's means [T] with the epoch's before."""
        now = mean_losses.detach().to(self.past)
        rates = now / self.past
        known = rates.isfinite()
        weights = torch.ones_like(self.weights)
        weights[known] = known.sum() * (rates[known] / self.temperature).softmax(0)
        self.past, self.weights = now, weights
