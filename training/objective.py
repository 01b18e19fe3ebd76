"""The terms of the objective (Eq. 7): final losses, intermediate losses and the coherence term."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.config import LossConfig
from training.data import Batch
from training.losses import labelled_pixels, task_losses
from training.model import Predictions
from training.tasks import Task


@dataclass(frozen=True)
class Terms:
    """The terms of a step.

    ``losses`` are the T losses of the final predictions and ``folded`` the T sums of the intermediate ones,
    fp32 scalars; ``unweighted`` is the coherence term. ``supervised`` [T], bool, says which tasks have a
    label in the batch, whichever rank holds it.
    """

    losses: list[Tensor]
    folded: list[Tensor]
    unweighted: Tensor
    supervised: Tensor


class Objective:
    """Losses of all predictions against a batch at the configured strides.

    On several ranks a task's loss is its rank's mean times the rank's share of the labelled pixels over the
    mean share, so that the average over ranks is the mean over the pixels of the joined batch. That is exact
    for means over pixels; relative depth, a mean over images, and what its batch weighs (saliency, weighted
    classes) come near.

    Args:
        tasks: in head order.
        config: strides and constant scales.
        reduce: averages a small fp32 tensor over the ranks.
        class_weights: by name of a ``labels`` task, the weight [S] of each of its target ids.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: LossConfig,
        reduce: Callable[[Tensor], Tensor] = lambda numbers: numbers,
        class_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.config = config
        self._reduce = reduce
        self._class_weights = dict(class_weights or {})

    def _losses(
        self, predictions: Mapping[str, Tensor], labels: Mapping[str, Tensor], shares: Tensor
    ) -> list[Tensor]:
        size = next(iter(labels.values())).shape[-2:]
        resized = {
            name: functional.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)
            for name, x in predictions.items()
        }
        class_weights = {name: weights.to(shares.device) for name, weights in self._class_weights.items()}
        losses = task_losses(resized, labels, self.tasks, class_weights, self.config.metric_error)
        return [
            losses[task.name] * self.config.scale.get(task.name, 1.0) * share
            for task, share in zip(self.tasks, shares, strict=True)
        ]

    def __call__(self, predictions: Predictions, batch: Batch) -> Terms:
        """The terms of one step.

        Args:
            predictions: the network's, in training mode.
            batch: labels at the input size; see `training.data.Sample`.
        """
        final = labels_at(batch, self.config.final_stride)
        coarse = labels_at(batch, self.config.intermediate_stride)
        pixels = torch.stack([labelled_pixels(maps, self.tasks) for maps in (final, coarse)])
        mean = self._reduce(pixels)
        shares = torch.where(mean > 0, pixels / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1)
        losses = self._losses(predictions.final, final, shares[0])
        levels = max((len(maps) for maps in predictions.intermediate.values()), default=0)
        folded = [loss.new_zeros(()) for loss in losses]
        for level in range(levels):
            at_level = {name: maps[level] for name, maps in predictions.intermediate.items()}
            added = self._losses(at_level, coarse, shares[1])
            folded = [before + now for before, now in zip(folded, added, strict=True)]
        unweighted = losses[0].new_zeros(())
        if predictions.cosine is not None:
            unweighted = self.config.lambda_cos * predictions.cosine.float()
        return Terms(losses, folded, unweighted, mean[0] > 0)


def labels_at(batch: Batch, stride: int) -> dict[str, Tensor]:
    """The batch's label maps at every ``stride``-th pixel (nearest, so no two labels are ever mixed).

    Labels travel in small types: what is left of float16 maps becomes float32 here, target ids in the loss.
    """
    first = stride // 2 if stride > 1 else 0
    maps = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "image"}
    strided = {name: value[..., first::stride, first::stride] for name, value in maps.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in strided.items()}
