"""Gradient cosine similarity (Du et al., "Adapting Auxiliary Losses Using Gradient Similarity", 2018)."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from training.balancing.base import Balancer, Observation, TaskWeights


class GCS(Balancer):
    """The encoder follows an auxiliary task only where its gradient does not oppose the primary task's.

    Args:
        tasks: T, or the task names.
        primary: the primary task, by name or position; its weight is 1.
        soft: auxiliary weight max(0, cos) rather than 1[cos >= 0].
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True

    def __init__(self, tasks: int | Sequence[str], primary: int | str = 0, soft: bool = False) -> None:
        super().__init__(tasks)
        self.primary, self.soft = self.index(primary), soft

    def forward(self, observation: Observation) -> TaskWeights:
        """Constant heads, gated encoder weights."""
        norms = observation.norms
        lengths = norms * norms[self.primary]
        cosines = torch.where(lengths > 0, observation.gram[self.primary] / lengths, 0)
        gradient_weights = cosines.clamp(0, 1) if self.soft else (cosines >= 0).to(norms)
        gradient_weights[self.primary] = 1
        return TaskWeights(torch.ones_like(norms), gradient_weights)
