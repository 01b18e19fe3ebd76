"""Uncertainty weighting (Kendall et al., "Multi-Task Learning Using Uncertainty", CVPR 2018)."""

from collections.abc import Sequence

import torch
from torch import nn

from training.balancing.base import Balancer, Observation, TaskWeights, present


class Uncertainty(Balancer):
    """sum_i 1/2 e^{-s_i} L_i + 1/2 s_i with learned s_i = log sigma_i^2, 0 at first (Eq. 7 there).

    The stationary point is sigma_i^2 = L_i. A task without a label in the batch leaves its s alone.

    Raises:
        ValueError: ``lr``, the learning rate of s, negative; None: the run's.
    """

    def __init__(self, tasks: int | Sequence[str], lr: float | None = None) -> None:
        super().__init__(tasks)
        self.learn_at(lr)
        self.log_variance = nn.Parameter(torch.zeros(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """Weights and regulariser, both with a gradient to s."""
        labelled = present(observation.losses)
        return TaskWeights(
            0.5 * torch.exp(-self.log_variance), penalty=0.5 * (self.log_variance * labelled).sum()
        )
