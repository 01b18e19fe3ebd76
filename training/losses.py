"""The loss of each task: cross-entropy, depth in metres or up to scale and shift, normals, saliency, edges.

One function a task kind, in fp32 whatever the precision of the network, each a mean over the *valid* pixels
of the batch. A missing label costs nothing: a task without any valid pixel gives an exact zero that is still
connected to the graph, so that its gradient is zero and never NaN. No loss reads a number back from the
device, and no shape depends on a label; ``torch.where`` with a number would copy it to the device.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from training.label_loss import label_cross_entropy
from training.label_spaces import IGNORE_LABEL
from training.lovasz import lovasz_softmax
from training.tasks import IGNORE_PROBABILITY, INVALID_DEPTH, Kind, Task, entry

Batch = Mapping[str, Tensor]
MetricError = Literal["l1", "l2"]
"""Error of depth in metres: ``l1`` as in the paper aims at the median, ``l2`` at the mean, as RMSE does."""

DISPARITY = "disparity"
"""Batch entry with relative inverse depth, the second source of depth labels."""
NEAREST_DEPTH = 0.01
"""Metres; predictions nearer than this are clamped before they are inverted."""
LEAST_SPREAD = 0.01
"""Floor of a prediction's mean absolute deviation, as a share of its median: bounds the gradient of a
near-constant prediction in `scale_and_shift_invariant`."""

LEAST_LENGTH = 1e-3
"""Floor of the length by which a predicted normal is divided."""

EDGE_WEIGHT = 0.95
"""Weight of edge pixels; the others weigh 1 minus this. The field's fixed value (Maninis et al., ASTMT)."""


def task_losses(
    predictions: Mapping[str, Tensor],
    batch: Batch,
    tasks: Sequence[Task],
    class_weights: Mapping[str, Tensor] | None = None,
    metric_error: MetricError = "l1",
    lovasz: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """The loss of every task, fp32 scalars.

    Args:
        predictions: by task name, head outputs at the size of the batch: ``labels`` [B,K,H,W] logits,
            ``depth`` [B,1,H,W] metres (> 0), ``normals`` [B,3,H,W] of any length, ``probability`` [B,1,H,W]
            logits.
        batch: labels by task name, an absent entry is a missing label: ``labels`` target ids [B,H,W] (255
            ignore), ``depth`` float [B,1,H,W] metres (0 invalid) and beside it ``disparity`` float [B,1,H,W]
            relative inverse depth (0 invalid), ``normals`` float [B,3,H,W] ((0,0,0) invalid),
            ``probability`` float [B,1,H,W] in 0..1 (-1 ignore).
        tasks: the tasks to compute, each of which must be in ``predictions``.
        class_weights: by name of a ``labels`` task, the weight of each of its S target ids; 1 where absent.
        metric_error: see `depth_loss`.
        lovasz: by name of a ``labels`` task, how many times `training.lovasz` is added; 0 where absent.
    """
    options: dict[str, dict[str, Any]] = {task.name: {} for task in tasks}
    for task in tasks:
        if task.kind == "depth":
            options[task.name]["metric_error"] = metric_error
        elif class_weights is not None and task.name in class_weights:
            options[task.name]["weight"] = class_weights[task.name]
    losses = {}
    for task in tasks:
        prediction = predictions[task.name]
        with torch.autocast(prediction.device.type, enabled=False):
            losses[task.name] = entry(LOSSES, task)(prediction.float(), batch, task, **options[task.name])
            factor = (lovasz or {}).get(task.name, 0)
            if factor and task.name in batch:
                assert task.space is not None
                surrogate = lovasz_softmax(prediction.float(), batch[task.name], task.space)
                losses[task.name] = losses[task.name] + factor * surrogate
    return losses


def labelled_pixels(batch: Batch, tasks: Sequence[Task]) -> Tensor:
    """How many pixels of ``batch`` carry a label of each task: float32 [T], on the device of the labels."""
    device = next((labels.device for labels in batch.values()), None)
    counts = []
    for task in tasks:
        found = [VALID[task.kind](batch[name]).sum() for name in _sources(task) if name in batch]
        counts.append(sum(found[1:], found[0]) if found else torch.zeros((), device=device))
    return torch.stack(counts).float()


def depth_loss(depth: Tensor, batch: Batch, task: Task, metric_error: MetricError = "l1") -> Tensor:
    """``metric_error`` in metres where they are known, invariant to scale and shift where only disparity is.

    The two means are averaged by the number of images that each rests on; an image with both counts twice.
    """
    total = _zero(depth)
    images = total.new_zeros(())
    target = batch.get(task.name)
    if target is not None:
        valid = VALID[task.kind](target)
        labelled = valid.flatten(1).any(dim=1).sum()
        error = depth - target
        error = error.abs() if metric_error == "l1" else error.square()
        total = total + labelled * _masked_mean(error, valid)
        images = images + labelled
    disparity = batch.get(DISPARITY)
    if disparity is not None:
        inverse = depth.clamp_min(NEAREST_DEPTH).reciprocal()
        per_image, informative = scale_and_shift_invariant(inverse, disparity, VALID[task.kind](disparity))
        total = total + per_image.sum()
        images = images + informative.sum()
    return total / images.clamp_min(1)


def scale_and_shift_invariant(prediction: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """L1 between two maps after each lost its median and was divided by its mean absolute deviation.

    Ranftl et al., "Towards Robust Monocular Depth Estimation" (MiDaS, arXiv 1907.01341), the robust L_ssimae
    of section 5, without its factor 1/2.

    Args:
        prediction: [B,1,H,W] inverse depth, any unit.
        target: [B,1,H,W] inverse depth up to a positive scale and a shift.
        valid: bool [B,1,H,W].

    Returns:
        The mean error of each image [B] and whether its label says anything at all [B]: an image without
        valid pixels, or whose valid pixels all have one disparity, is left out with an exact zero.
    """
    prediction, target, valid = prediction.flatten(1), target.flatten(1), valid.flatten(1)
    weight = valid / valid.sum(dim=1, keepdim=True).clamp_min(1)
    target_centred, target_spread, _ = _centre(target, valid, weight)
    centred, spread, median = _centre(prediction, valid, weight)
    floor = LEAST_SPREAD * median.detach().abs()
    tiny = torch.finfo(prediction.dtype).tiny
    error = centred / spread.maximum(floor).clamp_min(tiny) - target_centred / target_spread.clamp_min(tiny)
    informative = target_spread.squeeze(1) > 0
    return (error.abs() * weight).sum(dim=1) * informative, informative


def normals_loss(normals: Tensor, batch: Batch, task: Task) -> Tensor:
    """L1 between the L2-normalised prediction [B,3,H,W] and the label, over valid pixels and channels.

    Vectors shorter than `LEAST_LENGTH` are divided by that instead, which bounds their gradient.
    """
    target = batch.get(task.name)
    if target is None:
        return _zero(normals)
    inverse_length = (normals * normals).sum(dim=1, keepdim=True).clamp_min(LEAST_LENGTH**2).rsqrt()
    error = (normals * inverse_length - target).abs().mean(dim=1, keepdim=True)
    return _masked_mean(error, VALID[task.kind](target))


def balanced_bce(logits: Tensor, batch: Batch, task: Task) -> Tensor:
    """Class-balanced binary cross-entropy of [B,1,H,W] logits on soft targets.

    Foreground is weighted by the share of background among the batch's valid pixels and background by the
    share of foreground (Xie and Tu, HED, equation 2); a target between 0 and 1 counts for both by its value.
    """
    target = batch.get(task.name)
    if target is None:
        return _zero(logits)
    valid = VALID[task.kind](target)
    target = target.clamp(0, 1)
    return _weighted_bce(logits, target, valid, _masked_mean(1 - target, valid))


def edge_bce(logits: Tensor, batch: Batch, task: Task) -> Tensor:
    """Binary cross-entropy of [B,1,H,W] edge logits: edges weigh `EDGE_WEIGHT`, the rest 1 - `EDGE_WEIGHT`.

    The weight is fixed, as in the published multi-task code, where saliency takes it from the batch: an image
    without a single edge still says that it has none.
    """
    target = batch.get(task.name)
    if target is None:
        return _zero(logits)
    return _weighted_bce(logits, target.clamp(0, 1), VALID[task.kind](target), EDGE_WEIGHT)


def _weighted_bce(logits: Tensor, target: Tensor, valid: Tensor, weight: Tensor | float) -> Tensor:
    """Mean cross-entropy over valid pixels, foreground weighing ``weight``, background the rest of 1."""
    # -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(-x) + x
    positive, negative = weight * target, (1 - weight) * (1 - target)
    error = (positive + negative) * F.softplus(-logits) + negative * logits
    return _masked_mean(error, valid)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "labels": label_cross_entropy,
    "depth": depth_loss,
    "normals": normals_loss,
    "probability": balanced_bce,
    "edges": edge_bce,
}
"""Loss of each kind of task, or of a task by name; a new kind is one function and one entry here and in
`VALID`."""

VALID: dict[Kind, Callable[[Tensor], Tensor]] = {
    "labels": lambda target: target != IGNORE_LABEL,
    "depth": lambda target: target > INVALID_DEPTH,
    "normals": lambda target: target.abs().amax(dim=1, keepdim=True) > 0,
    "probability": lambda target: target > IGNORE_PROBABILITY,
}
"""Where a label map of each kind holds a label: bool, the map's shape with one channel."""


def _sources(task: Task) -> tuple[str, ...]:
    return (task.name, DISPARITY) if task.kind == "depth" else (task.name,)


def _zero(prediction: Tensor) -> Tensor:
    """Exact zero connected to ``prediction``, even where that is not finite."""
    return prediction.flatten()[:0].sum()


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    return values.masked_fill(~valid, 0).sum() / valid.sum().clamp_min(1)


def _centre(values: Tensor, valid: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows minus the median of their valid entries, 0 where invalid; mean absolute deviations; medians.

    Both are [B,1], and 0 where a row has no valid entry.
    """
    invalid = ~valid
    median = values.masked_fill(invalid, torch.nan).nanmedian(dim=1, keepdim=True).values.nan_to_num(0)
    centred = (values - median).masked_fill(invalid, 0)
    return centred, (centred.abs() * weight).sum(dim=1, keepdim=True), median
