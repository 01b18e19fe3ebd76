"""The one interface of all balancing methods: what a method sees, and what it answers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Observation:
    """What a balancer may look at, detached and in fp32.

    ``losses`` is [T]; entries of tasks without a label in the batch are 0.
    """

    losses: Tensor
    epoch: int
    step: int


@dataclass(frozen=True)
class TaskWeights:
    """Weights [T] by which the task losses are multiplied before the one backward pass."""

    heads: Tensor


class Balancer(nn.Module, ABC):
    """A balancing method: never calls backward, keeps its state in buffers so that checkpoints resume."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    @abstractmethod
    def forward(self, seen: Observation) -> TaskWeights:
        """The weights of this step."""

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Learn from the epoch's mean losses [T]; NaN marks a task that had no label in the epoch."""
