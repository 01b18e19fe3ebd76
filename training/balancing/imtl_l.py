"""IMTL-L, the loss half of IMTL (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021)."""

from collections.abc import Sequence

import torch
from torch import nn

from training.balancing.base import Balancer, Observation, TaskWeights, present


class IMTLL(Balancer):
    """sum_i e^{s_i} L_i - s_i with learned s_i, 0 at first: all e^{s_i} L_i tend to 1.

    It is twice uncertainty weighting at -s. A task without a label in the batch leaves its s alone.

    Raises:
        ValueError: ``lr``, the learning rate of s, negative; None: the run's.
    """

    def __init__(self, tasks: int | Sequence[str], lr: float | None = None) -> None:
        super().__init__(tasks)
        self.learn_at(lr)
        self.log_scale = nn.Parameter(torch.zeros(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """Weights and regulariser, both with a gradient to s."""
        return TaskWeights(
            self.log_scale.exp(), penalty=-(self.log_scale * present(observation.losses)).sum()
        )
