"""Every metric of every task over a split."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from training.metrics.base import TaskMetric
from training.metrics.depth import DepthMetric
from training.metrics.labels import LabelMetric
from training.metrics.normals import NormalsMetric
from training.metrics.probability import ProbabilityMetric
from training.tasks import Kind, Task

METRICS: dict[Kind, Callable[[Task], TaskMetric]] = {
    "labels": LabelMetric,
    "depth": DepthMetric,
    "normals": NormalsMetric,
    "probability": ProbabilityMetric,
}
"""Metric of each kind of task; a new kind is one file and one entry here."""


class Evaluation:
    """Collects the metrics of ``tasks`` over a split.

    Under `torch.distributed` every rank updates its own and `compute`, which every rank must call, adds the
    states of all. Maps and labels must be on the device of `to` (at first the CPU).
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._metrics = {task.name: METRICS[task.kind](task) for task in tasks}

    def to(self, device: torch.device | str) -> Self:
        """Move all states to ``device``."""
        for metric in self._metrics.values():
            metric.to(device)
        return self

    def update(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
        """Add a batch of any size.

        Args:
            outputs: by task name the maps that a bundle gives (`training.deploy.deployment_maps`): ``labels``
                uint8 [B,H,W], ``depth`` [B,H,W] metres, ``normals`` [B,H,W,3], ``probability`` [B,H,W].
            batch: labels by task name as for `training.losses.task_losses`; an absent entry is a missing
                label.

        Raises:
            ValueError: a map and its label differ in size.
        """
        for name, metric in self._metrics.items():
            target = batch.get(name)
            if target is None:
                continue
            output = outputs[name]
            size = (target.shape[0], *target.shape[-2:])
            if output.shape[:3] != size:
                raise ValueError(
                    f"{name}: the map has [B,H,W] {list(output.shape[:3])}, its label {list(size)}"
                )
            metric.update(output, target)

    def compute(self) -> dict[str, dict[str, float]]:
        """Task name -> metric name -> value; a task without any label in the split is absent, never zero."""
        with warnings.catch_warnings():  # a task without labels was never updated, and that is its answer
            warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
            figures = {name: metric.compute() for name, metric in self._metrics.items()}
        return {name: values for name, values in figures.items() if values}

    def reset(self) -> None:
        """Forget everything seen so far."""
        for metric in self._metrics.values():
            metric.reset()
