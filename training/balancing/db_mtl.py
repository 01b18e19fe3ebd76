"""DB-MTL (Lin et al., "Dual-Balancing for Multi-Task Learning", arXiv 2308.12029)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights, present

TINY = 1e-8
"""Added to losses before their logarithm."""


class DBMTL(Balancer):
    """Log losses on the heads; the encoder's log-loss gradients scaled to the largest norm.

    Loss weights 1 / L_i have the gradient of log L_i; gradient weights are (max_j m_j / m_i) / L_i, m_i the
    norm |g_i| / L_i. With ``norm_decay`` 0 that is the published method with beta = 0, at the shared
    representation. **Above 0 it is a variant of ours**: published is a running mean of the gradients with
    decay beta, which are of the shared parameters there; at the shared representation each step has other
    images, whose gradients have no mean, so that m_i is a running mean of the norms (bias-corrected).

    Raises:
        ValueError: ``norm_decay`` outside [0, 1).
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True
    average: Tensor
    mass: Tensor

    def __init__(self, tasks: int | Sequence[str], norm_decay: float = 0.9) -> None:
        super().__init__(tasks)
        if not 0 <= norm_decay < 1:
            raise ValueError(f"norm_decay must be in [0, 1), got {norm_decay}")
        self.norm_decay = norm_decay
        self.register_buffer("average", torch.zeros(self.tasks))
        self.register_buffer("mass", torch.zeros(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """Weights of the raw losses; a task without a label in the batch has 1 and keeps its mean."""
        norms = observation.norms
        taking_part = present(observation.losses) & present(norms)
        loss_weights = torch.where(
            present(observation.losses), 1 / (observation.losses.clamp_min(0) + TINY), 1
        )
        self.average = torch.where(
            taking_part, self.average.lerp(norms * loss_weights, 1 - self.norm_decay), self.average
        )
        self.mass = torch.where(
            taking_part, self.mass.lerp(torch.ones_like(norms), 1 - self.norm_decay), self.mass
        )
        means = torch.where(taking_part, self.average / self.mass, 0)
        gradient_weights = torch.where(taking_part, loss_weights * means.max() / means, loss_weights)
        return TaskWeights(loss_weights, gradient_weights)
