"""Every metric of every task over a split."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torchmetrics import Metric

from training.losses import DISPARITY
from training.metrics.base import Report, TaskMetric
from training.metrics.confidence import ConfidenceMetric
from training.metrics.correctness import judge
from training.metrics.depth import DepthMetric, DisparityMetric
from training.metrics.edges import EdgeMetric
from training.metrics.geometry import GeometryMetric
from training.metrics.labels import LabelMetric, merged, space_key
from training.metrics.normals import NormalsMetric
from training.metrics.probability import ProbabilityMetric
from training.tasks import Task, entry

METRICS: dict[str, Callable[[Task], TaskMetric]] = {
    "labels": LabelMetric,
    "depth": DepthMetric,
    "normals": NormalsMetric,
    "probability": ProbabilityMetric,
    "edges": EdgeMetric,
}
"""Metric of each kind of task, or of a task by name; a new kind is one file and one entry here."""


class Evaluation:
    """Collects the metrics of ``tasks`` over a split; relative depth labels are scored as ``disparity``.

    Under `torch.distributed` every rank updates its own and `compute`, which every rank must call, adds the
    states of all, so every rank has the metrics of the whole split. Give rank r of n the images
    ``Subset(source, range(r, len(source), n))``: a ``DistributedSampler`` repeats images to make shares
    equal, and a repeated image counts twice. A rank may have no image at all. Maps and labels must be on the
    device of `to` (at first the CPU). ``per_class`` adds the IoU of each class to ``labels`` tasks; the
    tasks in ``confident`` have metrics of their confidence.
    """

    def __init__(
        self, tasks: Sequence[Task], per_class: bool = False, confident: Sequence[Task] = ()
    ) -> None:
        self._metrics = {
            task.name: LabelMetric(task, per_class=True)
            if per_class and task.kind == "labels"
            else entry(METRICS, task)(task)
            for task in tasks
        }
        self._outputs = {task.name: task.name for task in tasks}
        self._labels = dict(self._outputs)
        self._spaces: set[str] = set()
        for task in tasks:
            if task.kind == "depth":  # relative labels are scored beside metric ones
                self._metrics[DISPARITY] = DisparityMetric(task)
                self._outputs[DISPARITY], self._labels[DISPARITY] = task.name, DISPARITY
            for space in task.space.targets.scored if task.space is not None else ():
                key = space_key(task.name, space)
                self._metrics[key] = LabelMetric(task, space, per_class)
                self._outputs[key], self._labels[key] = key, task.name
                self._spaces.add(key)
        self._confident = {task.name: (task, ConfidenceMetric()) for task in confident}
        names = {task.name for task in tasks}
        self._geometry = GeometryMetric() if {"depth", "normals"} <= names else None

    def to(self, device: torch.device | str) -> Self:
        """Move all states to ``device``."""
        for metric in self._all():
            metric.to(device)
        return self

    def _all(self) -> Iterator[Metric]:
        yield from self._metrics.values()
        yield from (metric for _, metric in self._confident.values())
        if self._geometry is not None:
            yield self._geometry

    def update(
        self,
        outputs: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        confidences: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add a batch of any size.

        Args:
            outputs: by task name the maps of `training.postprocess.deployment_maps`: ``labels`` uint8
                [B,H,W], ``depth`` [B,H,W] metres, ``normals`` [B,H,W,3], ``probability`` [B,H,W]. And
                those of `training.metrics.maps_in_other_spaces`, of the spaces that the batch is labelled in.
            batch: labels by task name as for `training.losses.task_losses`; an absent entry is a missing
                label. Beside depth also ``disparity``, and with normals ``focal`` [B,2].
            confidences: by name of each task in ``confident`` [B,H,W], 0 to 1.

        Raises:
            ValueError: a map and its label differ in size.
        """
        for name, metric in self._metrics.items():
            target = batch.get(self._labels[name])
            if target is None or (name in self._spaces and name not in outputs):
                continue
            output = outputs[self._outputs[name]]
            size = (target.shape[0], *target.shape[-2:])
            if output.shape[:3] != size:
                raise ValueError(
                    f"{name}: the map has [B,H,W] {list(output.shape[:3])}, its label {list(size)}"
                )
            metric.update(output, target)
        for name, (task, metric) in self._confident.items():
            if name in batch and confidences is not None:
                metric.update(confidences[name], *judge(task, outputs[name], batch[name]))
        if self._geometry is not None and {"normals", "focal"} <= batch.keys():
            self._geometry.update(outputs["depth"], outputs["normals"], batch["normals"], batch["focal"])

    def compute(self) -> Report:
        """Task name (or ``disparity``) -> metric name -> value; what has no label in the split is absent.

        Metrics in another label space end in its name, as in ``mIoU/voc``. ``geometry`` has those of
        `GeometryMetric`.
        """
        with warnings.catch_warnings():  # a task without labels was never updated, and that is its answer
            warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
            metrics = {name: metric.compute() for name, metric in self._metrics.items()}
            if self._geometry is not None:
                metrics["geometry"] = self._geometry.compute()
            sure = {name: metric.compute() for name, (_, metric) in self._confident.items()}
        joined = merged(metrics)
        for name, values in sure.items():
            if values:
                joined[name] = {**joined.get(name, {}), **values}
        return joined

    def states(self) -> list[dict[str, Tensor]]:
        """A copy of the sums of every metric; `restore` takes it."""
        return [
            {name: value.clone() for name, value in metric.metric_state.items()} for metric in self._all()
        ]

    def restore(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Have ``states`` in place of everything seen so far."""
        for metric, its in zip(self._all(), states, strict=True):
            metric.reset()
            metric.merge_state({name: value.to(metric.device) for name, value in its.items()})

    def reset(self) -> None:
        """Forget everything seen so far."""
        for metric in self._all():
            metric.reset()
