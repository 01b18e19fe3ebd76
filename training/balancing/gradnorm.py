"""GradNorm (Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing", ICML 2018)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.balancing.base import Balancer, Observation, TaskWeights, present


class GradNorm(Balancer):
    """Learned weights w = T softmax(v) that pull all w_i n_i to a common rate of training.

    The penalty sum_i |w_i n_i - sg(mean_j(w_j n_j) r_i^alpha)| trains v alone (Eq. 2 there), r_i being the
    loss over its first value, relative to the tasks' mean. The norms n_i are taken at the shared
    representation, where the paper takes the last shared layer's weights. Tasks without a label in the batch
    are left out of means and penalty.

    Raises:
        ValueError: ``alpha``, or ``lr``, the learning rate of v, negative.
    """

    needs_gramian: ClassVar[bool] = True
    first: Tensor

    def __init__(self, tasks: int | Sequence[str], alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(tasks)
        if alpha < 0:
            raise ValueError(f"alpha must not be negative, got {alpha}; 0 makes all norms equal")
        self.learn_at(lr)
        self.alpha = alpha
        self.logits = nn.Parameter(torch.zeros(self.tasks))
        self.register_buffer("first", torch.full((self.tasks,), torch.nan))

    def forward(self, observation: Observation) -> TaskWeights:
        """Weights without, penalty with a gradient to v."""
        norms = observation.norms
        taking_part = present(observation.losses) & present(norms)
        self.first = torch.where(self.first.isnan() & taking_part, observation.losses, self.first)
        weights = self.tasks * self.logits.softmax(0)
        if not taking_part.any():
            return TaskWeights(weights.detach())
        scaled = (weights * norms)[taking_part]
        progress = (observation.losses / self.first)[taking_part]
        target = scaled.mean() * (progress / progress.mean()) ** self.alpha
        return TaskWeights(weights.detach(), penalty=(scaled - target.detach()).abs().sum())
