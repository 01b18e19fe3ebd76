"""Losses scaled by their gradient norms (arXiv 2509.23915)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights, present, sum_to_count


class GradientNormScaling(Balancer):
    """w_i ~ EMA(n_i)^{-power}, sum T, so that all w_i n_i are alike.

    The paper's abstract states the rule, "scaling task losses according to their gradient norms"; the
    average, the exponent and the freezing are ours. Tasks not seen yet have weight 1.

    Args:
        tasks: T, or the task names.
        beta: decay of the running mean of n_i (bias-corrected); 0 uses the step's norms alone.
        power: 1 equalises the norms, 0 is equal weighting.
        freeze_after: steps after which the weights stay as they are; None: never.

    Raises:
        ValueError: ``beta`` outside [0, 1), ``power`` negative, or ``freeze_after`` below 1.
    """

    needs_gramian: ClassVar[bool] = True
    average: Tensor
    mass: Tensor

    def __init__(
        self,
        tasks: int | Sequence[str],
        beta: float = 0.9,
        power: float = 1.0,
        freeze_after: int | None = None,
    ) -> None:
        super().__init__(tasks)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}")
        if power < 0:
            raise ValueError(f"power must not be negative, got {power}; 0 is equal weighting")
        if freeze_after is not None and freeze_after < 1:
            raise ValueError(f"freeze_after must be at least 1 step, got {freeze_after}")
        self.beta, self.power, self.freeze_after = beta, power, freeze_after
        self.register_buffer("average", torch.zeros(self.tasks))
        self.register_buffer("mass", torch.zeros(self.tasks))

    def settled(self, step: int) -> bool:
        """From ``freeze_after`` on."""
        return self.freeze_after is not None and step >= self.freeze_after

    def forward(self, observation: Observation) -> TaskWeights:
        """The weights after this step's norms."""
        norms = observation.norms
        if not self.settled(observation.step):
            update = present(norms)
            self.average = torch.where(update, self.average.lerp(norms, 1 - self.beta), self.average)
            self.mass = torch.where(update, self.mass.lerp(torch.ones_like(norms), 1 - self.beta), self.mass)
        known = self.mass > 0
        means = torch.where(known, self.average / self.mass, 1)
        return TaskWeights(sum_to_count((means / means.max()) ** -self.power, known))
