"""The training objective (Eq. 7): weighted task losses, intermediate losses, the coherence term."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.config import LossConfig
from training.data import Batch
from training.losses import supervised, task_losses
from training.model import Predictions
from training.tasks import Task


@dataclass(frozen=True)
class Terms:
    """Terms of a step: ``losses`` [T] of the final predictions, the unweighted rest, who had labels [T]."""

    losses: Tensor
    extra: Tensor
    supervised: Tensor


class Objective:
    """Losses of all predictions against a batch at the configured strides."""

    def __init__(self, tasks: Sequence[Task], config: LossConfig) -> None:
        self.tasks = list(tasks)
        self.config = config
        self._class_weights = {name: torch.tensor(values) for name, values in config.class_weights.items()}

    def _losses(self, predictions: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
        size = next(iter(labels.values())).shape[-2:]
        resized = {
            name: functional.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)
            for name, x in predictions.items()
        }
        device = next(iter(labels.values())).device
        class_weights = {name: weights.to(device) for name, weights in self._class_weights.items()}
        losses = task_losses(resized, labels, self.tasks, class_weights)
        scale = self.config.scale
        return torch.stack([losses[task.name] * scale.get(task.name, 1.0) for task in self.tasks])

    def __call__(self, predictions: Predictions, batch: Batch) -> Terms:
        """Losses of one step.

        Args:
            predictions: the network's, in training mode.
            batch: labels at the input size; see `training.data.Sample`.
        """
        final = labels_at(batch, self.config.final_stride)
        coarse = labels_at(batch, self.config.intermediate_stride)
        losses = self._losses(predictions.final, final)
        extra = losses.new_zeros(())
        for level in range(max((len(maps) for maps in predictions.intermediate.values()), default=0)):
            at_level = {name: maps[level] for name, maps in predictions.intermediate.items()}
            extra = extra + self._losses(at_level, coarse).sum()
        if predictions.cosine is not None:
            extra = extra + self.config.lambda_cos * predictions.cosine.float()
        flags = supervised(final, self.tasks)
        return Terms(losses, extra, torch.tensor([flags[task.name] for task in self.tasks]))


def labels_at(batch: Batch, stride: int) -> dict[str, Tensor]:
    """The batch's label maps at every ``stride``-th pixel (nearest, so no two labels are ever mixed)."""
    maps = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "image"}
    if stride == 1:
        return maps
    return {name: value[..., stride // 2 :: stride, stride // 2 :: stride] for name, value in maps.items()}
