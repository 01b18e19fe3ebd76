"""OL-AUX (Lin et al., "Adaptive Auxiliary Task Weighting for Reinforcement Learning", NeurIPS 2019)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights


class OLAux(Balancer):
    """Auxiliary encoder weights that grow with the inner products with the primary task's gradient.

    After every N steps w_t += beta sum <g_p, g_t> over those steps, from 1 on. A weight stops
    at 0, where the encoder would begin to unlearn the task: that is ours. ``beta`` has the unit of an inverse
    squared gradient norm and wants choosing.

    Args:
        tasks: T, or the task names.
        primary: the primary task, by name or position; its weight is 1.
        beta: learning rate of the weights.
        interval: N.

    Raises:
        ValueError: an unknown task, ``beta`` not positive, or ``interval`` below 1.
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True
    weights: Tensor
    products: Tensor
    steps: Tensor

    def __init__(
        self, tasks: int | Sequence[str], primary: int | str = 0, beta: float = 1.0, interval: int = 5
    ) -> None:
        super().__init__(tasks)
        if beta <= 0:
            raise ValueError(f"beta must be positive, got {beta}")
        if interval < 1:
            raise ValueError(f"interval must be at least 1 step, got {interval}")
        self.primary, self.beta, self.interval = self.index(primary), beta, interval
        self.register_buffer("weights", torch.ones(self.tasks))
        self.register_buffer("products", torch.zeros(self.tasks))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, observation: Observation) -> TaskWeights:
        """Constant heads; encoder weights learned up to this step."""
        self.products = self.products + observation.gram[self.primary]
        self.steps = self.steps + 1
        if self.steps >= self.interval:
            weights = (self.weights + self.beta * self.products).clamp_min(0)
            weights[self.primary] = 1
            self.weights = weights
            self.products, self.steps = torch.zeros_like(weights), torch.zeros_like(self.steps)
        return TaskWeights(torch.ones_like(self.weights), self.weights)
