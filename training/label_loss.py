"""Cross-entropy of class maps whose labels are sets of classes.

A label says that a pixel is one of a set of the network's classes (see `training.label_spaces.targets`). Its
loss is minus the log of the probability that the network gives to the whole set: marginal cross-entropy. It
is plain cross-entropy where the set is one class, and 0 where it is all of them.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.label_spaces import IGNORE_LABEL, LabelSpace
from training.tasks import Task


@lru_cache(maxsize=64)
def _log_members(space: LabelSpace, device: torch.device) -> Tensor:
    """[S, K]: 0 for the classes of each target, minus infinity for the others."""
    members = torch.from_numpy(space.targets.members)
    return torch.zeros(members.shape).masked_fill(~members, -torch.inf).to(device)


class _MarginalCrossEntropy(torch.autograd.Function):
    """Of rows of classes, which are next to each other in maps that are channels last.

    The gradient is softmax over all classes less softmax over the set, and the loss the difference of their
    logarithms at any class of the set: both are taken from two passes over the rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, valid: Tensor, targets: Tensor, log_members: Tensor) -> Tensor:
        rows = torch.where(valid.unsqueeze(-1), rows, rows.new_zeros(()))
        within = F.embedding(targets, log_members).add_(rows)
        member = log_members.argmax(-1)[targets].unsqueeze(-1)
        loss = within.log_softmax(-1).gather(-1, member) - rows.log_softmax(-1).gather(-1, member)
        ctx.save_for_backward(rows.softmax(-1).sub_(within.softmax(-1)))
        return loss.squeeze(-1).clamp_min_(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (direction,) = ctx.saved_tensors
        return direction * upstream[0].unsqueeze(-1), None, None, None


def marginal_cross_entropy(logits: Tensor, targets: Tensor, log_members: Tensor, valid: Tensor) -> Tensor:
    """Minus the log of the probability of each pixel's set of classes.

    Args:
        logits: float [B, K, H, W].
        targets: int64 [B, H, W], below S.
        log_members: [S, K], 0 for the classes of a set, minus infinity for the others.
        valid: bool [B, H, W]; elsewhere logits count as zeros, whatever they are, and get no gradient if the
            loss gets none.

    Returns:
        [B, H, W], at least 0.
    """
    losses: Tensor = _MarginalCrossEntropy.apply(logits.movedim(1, -1), valid, targets, log_members)
    return losses


def label_cross_entropy(
    logits: Tensor, batch: Mapping[str, Tensor], task: Task, weight: Tensor | None = None
) -> Tensor:
    """Mean over the labelled pixels of the loss of a ``labels`` task, 0 without any.

    Args:
        logits: float32 [B, K, H, W].
        batch: the task's target ids [B, H, W] (uint8 or int64, 255 ignore) under its name, if there are any.
        task: whose label space says what target ids mean.
        weight: [S], how much each target id weighs in the mean; None: all the same.
    """
    target = batch.get(task.name)
    if target is None:
        return logits.flatten()[:0].sum()
    assert task.space is not None
    valid = target != IGNORE_LABEL
    ids = target.long().masked_fill(~valid, 0)
    if task.space.targets.plain:
        logits = logits.masked_fill(~valid[:, None], 0)  # whatever they are, their gradient is exactly 0
        losses = F.cross_entropy(logits, ids, reduction="none")
    else:
        log_members = _log_members(task.space, logits.device).to(logits)
        losses = marginal_cross_entropy(logits, ids, log_members, valid)
    weights = valid if weight is None else weight[ids].masked_fill(~valid, 0)
    floor = 1.0 if weight is None else 1e-6
    return (losses.masked_fill(~valid, 0) * weights).sum() / weights.sum().clamp_min(floor)
