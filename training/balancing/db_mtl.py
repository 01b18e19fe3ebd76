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

    Heads 1 / L_i have the gradient of log L_i; encoder weights are (max_j m_j / m_i) / L_i. The paper
    averages the gradients themselves over the steps; at the shared representation, where each step has other
    images, the running mean m_i is of the norms |g_i| / L_i (decay ``beta``, bias-corrected).

    Raises:
        ValueError: ``beta`` outside [0, 1).
    """

    needs_gramian: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    average: Tensor
    mass: Tensor

    def __init__(self, tasks: int | Sequence[str], beta: float = 0.9) -> None:
        super().__init__(tasks)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}")
        self.beta = beta
        self.register_buffer("average", torch.zeros(self.tasks))
        self.register_buffer("mass", torch.zeros(self.tasks))

    def forward(self, seen: Observation) -> TaskWeights:
        """Weights of the raw losses; a task without a label in the batch has 1 and keeps its mean."""
        norms = seen.norms
        taking_part = present(seen.losses) & present(norms)
        heads = torch.where(present(seen.losses), 1 / (seen.losses.clamp_min(0) + TINY), 1)
        self.average = torch.where(taking_part, self.average.lerp(norms * heads, 1 - self.beta), self.average)
        self.mass = torch.where(taking_part, self.mass.lerp(torch.ones_like(norms), 1 - self.beta), self.mass)
        means = torch.where(taking_part, self.average / self.mass, 0)
        encoder = torch.where(taking_part, heads * means.max() / means, heads)
        return TaskWeights(heads, encoder)
