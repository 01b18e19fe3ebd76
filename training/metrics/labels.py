"""Semantic segmentation and parsing: mean intersection over union, in one label space or several."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from training.bilinear import resized
from training.guided_filter import upsample
from training.label_spaces import IGNORE_LABEL, Part
from training.metrics.base import TaskMetric
from training.metrics.boundaries import edge_counts, edge_f, label_edges
from training.tasks import Task


class LabelMetric(TaskMetric):
    """``mIoU``, ``mIoU/all``, ``pixel_accuracy`` and ``edgeF``, 0 to 1, in one label space.

    TP / (TP + FP + FN) is pooled over the split before the mean over classes. ``mIoU`` is over the classes
    that the split labels, so that no stray prediction changes what it is a mean of; ``mIoU/all`` over all
    classes of the space, as published: one that is neither labelled nor predicted counts 0. In a label space
    of people's parts an image without people (nothing but background) is skipped, as in the published
    protocols. ``edgeF`` is the F-measure of the boundaries between classes, see
    `training.metrics.boundaries`; it is absent where no two classes meet.

    Args:
        task: whose targets are scored.
        space: a space out of ``task.space.targets.scored``; None: the task's own.
        per_class: also give ``IoU/CLASS`` of every class that the split labels.
    """

    confusion: Tensor
    edges: Tensor
    table: Tensor

    def __init__(self, task: Task, space: str | None = None, per_class: bool = False) -> None:
        super().__init__()
        assert task.space is not None
        targets = task.space.targets
        table = targets.own if space is None else targets.parts[space].classes
        self.classes = task.channels if space is None else len(targets.parts[space].members)
        self.labels = targets.parts[space or task.space.name].labels if per_class else ()
        self.people_only = task.space.people_only
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.add_state("edges", torch.zeros(4, dtype=torch.float64), "sum")
        self.add_state("confusion", torch.zeros(self.classes, self.classes, dtype=torch.int64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add class ids [B,H,W] and target ids [B,H,W] (255 ignore)."""
        labels = self.table[target.long()].long()
        if self.people_only:
            people = ((labels != 0) & (labels != IGNORE_LABEL)).flatten(1).any(dim=1)
            labels = labels.masked_fill(~people[:, None, None], IGNORE_LABEL)
        valid = labels != IGNORE_LABEL
        found = label_edges(output, torch.ones_like(valid))
        self.edges += edge_counts(found, label_edges(labels, valid), valid)
        self.confusion += multiclass_confusion_matrix(
            output.long(), labels, self.classes, ignore_index=IGNORE_LABEL, validate_args=False
        )

    def compute(self) -> dict[str, float]:
        """The metrics of the pixels seen so far."""
        confusion = self.confusion.double()
        if not confusion.any():
            return {}
        hit, labelled = confusion.diag(), confusion.sum(dim=1)
        iou = hit / (confusion.sum(dim=0) + labelled - hit).clamp_min(1)
        edges = edge_f(self.edges)
        return {
            "mIoU": iou[labelled > 0].mean().item(),
            "mIoU/all": iou.mean().item(),
            "pixel_accuracy": (hit.sum() / confusion.sum()).item(),
            **({} if edges is None else {"edgeF": edges}),
            **{
                f"IoU/{label}": value
                for label, value, pixels in zip(self.labels, iou.tolist(), labelled.tolist(), strict=False)
                if pixels
            },
        }


def space_key(task: str, space: str) -> str:
    """Where `maps_in_other_spaces` puts the map of ``task`` in ``space``."""
    return f"{task}/{space}"


def maps_in_other_spaces(
    final: Mapping[str, Tensor],
    tasks: Sequence[Task],
    size: tuple[int, int],
    images: Tensor | None = None,
    labels: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Class maps in the label spaces that a task's own maps, by summing the probabilities of classes.

    Args:
        final: by task name, the network's predictions [B,K,h,w].
        tasks: the tasks of the network.
        size: height and width of the maps.
        images: as of `training.postprocess.deployment_maps`.
        labels: by task name, target ids [B,H,W]: only the spaces that some of them are in; None: all spaces.

    Returns:
        By `space_key`, uint8 [B,H,W], for each space in ``task.space.targets.scored``.
    """
    maps = {}
    for task in tasks:
        if task.space is None or not task.space.targets.scored:
            continue
        logits = final[task.name].float()
        probability = (logits if images is not None else resized(logits, size)).softmax(dim=1)
        for space in task.space.targets.scored:
            if labels is not None and not _is_labelled(
                labels.get(task.name), task.space.targets.parts[space]
            ):
                continue
            members = torch.from_numpy(task.space.targets.parts[space].members).to(probability)
            maps[space_key(task.name, space)] = F.conv2d(probability, members[:, :, None, None])
    if images is not None:
        maps = upsample(maps, size, images)
    return {name: summed.argmax(dim=1).byte() for name, summed in maps.items()}


def _is_labelled(labels: Tensor | None, part: Part) -> bool:
    """Whether any of the target ids belongs to the space of ``part``."""
    if labels is None:
        return False
    classes = torch.from_numpy(part.classes).to(labels.device)
    return bool((classes[labels.long()] != IGNORE_LABEL).any())


def merged(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Metrics by task name, those of `space_key` entries as ``METRIC/SPACE`` beside the task's own.

    Where the split has no label in the task's own space its ``mIoU`` is the mean over the other spaces.
    """
    joined: dict[str, dict[str, float]] = {}
    for key, values in metrics.items():
        task, _, space = key.partition("/")
        named = {f"{name}/{space}" if space else name: value for name, value in values.items()}
        joined.setdefault(task, {}).update(named)
    for task, values in joined.items():
        others = [own["mIoU"] for key, own in metrics.items() if key.startswith(f"{task}/") and own]
        if others and "mIoU" not in values:
            joined[task] = {"mIoU": sum(others) / len(others), **values}
    return {task: values for task, values in joined.items() if values}
