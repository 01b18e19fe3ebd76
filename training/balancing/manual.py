"""Constant weights: equal, or chosen by hand (Eq. 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights


class Manual(Balancer):
    """Fixed weights, one per task in task order; all 1 by default.

    Raises:
        ValueError: a wrong number of weights, a negative one, or none above 0.
    """

    weights: Tensor

    def __init__(self, tasks: int | Sequence[str], weights: Sequence[float] | None = None) -> None:
        super().__init__(tasks)
        chosen = [1.0] * self.tasks if weights is None else list(weights)
        if len(chosen) != self.tasks:
            raise ValueError(f"manual weighting needs {self.tasks} weights, one per task; got {len(chosen)}")
        if min(chosen) < 0:
            raise ValueError(f"manual weights must not be negative, got {chosen}")
        if max(chosen) == 0:
            raise ValueError("manual weights must not all be 0: nothing would be trained")
        self.register_buffer("weights", torch.tensor(chosen))

    def forward(self, observation: Observation) -> TaskWeights:
        """The constant weights."""
        return TaskWeights(self.weights)


class Equal(Manual):
    """All weights 1, whatever the tasks (EW)."""

    def __init__(self, tasks: int | Sequence[str]) -> None:
        super().__init__(tasks)
