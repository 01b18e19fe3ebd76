"""Semantic segmentation and parsing: mean intersection over union."""

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from training.metrics.base import TaskMetric
from training.tasks import IGNORE_LABEL, Task


class LabelMetric(TaskMetric):
    """``mIoU`` and ``pixel_accuracy``, 0 to 1.

    TP / (TP + FP + FN) is pooled over the split before the mean over classes; a class that is neither in the
    labels nor in the predictions is left out of the mean. In a label space of people's parts an image without
    people (nothing but background) is skipped, as in the published protocols, which agree on all of this.
    """

    confusion: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.classes = task.channels
        self.people_only = task.space is not None and task.space.people_only
        self.add_state("confusion", torch.zeros(task.channels, task.channels, dtype=torch.int64), "sum")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add class ids [B,H,W] and labels [B,H,W] (255 ignore)."""
        if self.people_only:
            people = ((target != 0) & (target != IGNORE_LABEL)).flatten(1).any(dim=1)
            target = target.masked_fill(~people[:, None, None], IGNORE_LABEL)
        self.confusion += multiclass_confusion_matrix(
            output.long(), target, self.classes, ignore_index=IGNORE_LABEL, validate_args=False
        )

    def compute(self) -> dict[str, float]:
        """The two figures of the pixels seen so far."""
        confusion = self.confusion.double()
        if not confusion.any():
            return {}
        hit = confusion.diag()
        union = confusion.sum(dim=0) + confusion.sum(dim=1) - hit
        return {
            "mIoU": (hit / union)[union > 0].mean().item(),
            "pixel_accuracy": (hit.sum() / confusion.sum()).item(),
        }
