"""What the metrics of every kind of task share."""

from abc import abstractmethod

from torch import Tensor
from torchmetrics import Metric

Report = dict[str, dict[str, float]]
"""Task name -> metric name -> value."""


class TaskMetric(Metric):  # type: ignore[misc]
    """Sums over the labelled pixels of a split that add up over batches and over ranks.

    Pooled means are ratios of such sums, so the result depends neither on the batch size nor on how images
    are shared among processes: a last, smaller batch weighs what its pixels weigh.
    """

    full_state_update = False

    @abstractmethod
    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: a map in deployment form and its label (both documented by `Evaluation.update`)."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metric name -> value; empty when no pixel had a label."""
