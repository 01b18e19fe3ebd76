"""The terms of the objective (Eq. 7): final losses, intermediate losses and the unweighted terms."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from training.balancing import TaskLosses
from training.bilinear import resized
from training.config import LossConfig
from training.data import Batch
from training.geometry import geometry_loss
from training.losses import labelled_pixels, task_losses
from training.model import Predictions
from training.tasks import Task


class Objective:
    """Losses of all predictions against a batch at the configured strides.

    Nothing is read back from the device and no shape depends on a label: a missing label is a mask. The
    predictions of all tasks are resized together, and the intermediate ones of all levels are one batch for
    the losses, whose means over pixels and images are then the means over levels.

    On several ranks a task's loss is its rank's mean times the rank's share of the labelled pixels over the
    mean share, so that the average over ranks is the mean over the pixels of the joined batch. That is exact
    for means over pixels; relative depth, a mean over images, and what its batch weighs (saliency, weighted
    classes) come near.

    Args:
        tasks: in head order.
        config: strides and constant scales.
        reduce: averages a small fp32 tensor over the ranks; None: there is one.
        class_weights: by name of a ``labels`` task, the weight [S] of each of its target ids.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: LossConfig,
        reduce: Callable[[Tensor], Tensor] | None = None,
        class_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self.config = config
        self._reduce = reduce
        self._class_weights = dict(class_weights or {})

    def __call__(self, predictions: Predictions, batch: Batch) -> TaskLosses:
        """The terms of one step.

        Args:
            predictions: the network's, in training mode.
            batch: labels at the input size; see `training.data.Sample`.
        """
        final = labels_at(batch, self.config.final_stride)
        coarse = labels_at(batch, self.config.intermediate_stride)
        counts = [labelled_pixels(final, self.tasks)]
        shares: Sequence[Tensor | None] = (None, None)
        if self._reduce is not None:
            pixels = torch.stack([counts[0], labelled_pixels(coarse, self.tasks)])
            counts = list(self._reduce(pixels))
            mean = torch.stack(counts)
            rare = pixels / mean.clamp_min(torch.finfo(mean.dtype).tiny)
            shares = list(rare.masked_fill(mean <= 0, 1))
        losses = self._losses(
            _at_size(self._joined(predictions.final, predictions.joint), final), final, shares[0], final=True
        )
        levels = max((len(maps) for maps in predictions.intermediate.values()), default=0)
        if levels:
            joint: Sequence[Tensor | None] = predictions.joint_intermediate or [None] * levels
            at_size = [
                _at_size(
                    self._joined(
                        {name: maps[level] for name, maps in predictions.intermediate.items()}, joint[level]
                    ),
                    coarse,
                )
                for level in range(levels)
            ]
            repeated = {name: maps.repeat(levels, *[1] * (maps.ndim - 1)) for name, maps in coarse.items()}
            aux_losses = self._losses(torch.cat(at_size), repeated, shares[1], levels)
        else:
            aux_losses = [loss.new_zeros(()) for loss in losses]
        coherence_loss = losses[0].new_zeros(())
        if predictions.cosine is not None:
            coherence_loss = self.config.lambda_cos * predictions.cosine.float()
        if self.config.lambda_geometry:
            depth, normals = (predictions.final[name].float() for name in ("depth", "normals"))
            disagreement = geometry_loss(depth, normals, batch["focal"], final.get("normals"))
            coherence_loss = coherence_loss + self.config.lambda_geometry * disagreement
        return TaskLosses(losses, aux_losses, coherence_loss, counts[0] > 0)

    def _joined(self, predictions: Mapping[str, Tensor], joint: Tensor | None) -> Tensor:
        """The predictions of all tasks in head order, [B, all channels, h, w]; ``joint`` if that is there."""
        return torch.cat([predictions[task.name] for task in self.tasks], 1) if joint is None else joint

    def _losses(
        self,
        joint: Tensor,
        labels: Mapping[str, Tensor],
        shares: Tensor | None,
        times: int = 1,
        final: bool = False,
    ) -> list[Tensor]:
        """The losses of maps that stand for ``times`` as many, each times its share of the labels."""
        rows = torch.split(joint.movedim(1, -1), [task.channels for task in self.tasks], -1)
        predictions = {task.name: x.movedim(-1, 1) for task, x in zip(self.tasks, rows, strict=True)}
        losses = task_losses(
            predictions,
            labels,
            self.tasks,
            self._weights(joint.device),
            self.config.metric_error,
            self.config.lovasz if final else None,
        )
        factors = [times * self.config.scale.get(task.name, 1.0) for task in self.tasks]
        named = zip(self.tasks, factors, strict=True)
        scaled = [losses[task.name] if factor == 1 else losses[task.name] * factor for task, factor in named]
        if shares is None:
            return scaled
        return [loss * share for loss, share in zip(scaled, shares, strict=True)]

    def _weights(self, device: torch.device) -> dict[str, Tensor]:
        """The class weights, moved to ``device`` once."""
        if any(weights.device != device for weights in self._class_weights.values()):
            self._class_weights = {name: value.to(device) for name, value in self._class_weights.items()}
        return self._class_weights


def _at_size(maps: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
    """[B, C, h, w] in fp32, at the size of the labels."""
    maps, size = maps.float(), next(iter(labels.values())).shape[-2:]
    if maps.shape[-2:] == size:
        return maps
    return resized(maps, size)


def labels_at(batch: Batch, stride: int) -> dict[str, Tensor]:
    """The batch's label maps at every ``stride``-th pixel (nearest, so no two labels are ever mixed).

    Labels travel in small types: what is left of float16 maps becomes float32 here, target ids in the loss.
    """
    first = stride // 2 if stride > 1 else 0
    maps = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    maps = {name: value for name, value in maps.items() if name not in ("image", "focal")}
    strided = {name: value[..., first::stride, first::stride] for name, value in maps.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in strided.items()}
