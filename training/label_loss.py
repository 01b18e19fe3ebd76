"""Cross-entropy of class maps whose labels are sets of classes.

A label says that a pixel is one of a set of the network's classes (see `training.label_spaces.targets`). Its
loss is minus the log of the probability that the network gives to the whole set: marginal cross-entropy. It
is plain cross-entropy where the set is one class, and 0 where it is all of them.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from training.label_spaces import IGNORE_LABEL, LabelSpace
from training.tasks import Task


@lru_cache(maxsize=64)
def _log_members(space: LabelSpace, device: torch.device) -> Tensor:
    """[S, K]: 0 for the classes of each target, minus infinity for the others."""
    members = torch.from_numpy(space.targets.members)
    return torch.zeros(members.shape).masked_fill(~members, -torch.inf).to(device)


def marginal_cross_entropy(logits: Tensor, targets: Tensor, log_members: Tensor) -> Tensor:
    """Minus the log of the probability of each pixel's set of classes.

    Args:
        logits: float32 [B, K, H, W].
        targets: int64 [B, H, W], below S.
        log_members: [S, K], 0 for the classes of a set, minus infinity for the others.

    Returns:
        [B, H, W], at least 0.
    """
    scores = logits.movedim(1, -1)
    return scores.logsumexp(-1) - (scores + F.embedding(targets, log_members)).logsumexp(-1)


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
    logits = logits.masked_fill(~valid[:, None], 0)  # whatever they are, their gradient is exactly 0
    if task.space.targets.plain:
        losses = F.cross_entropy(logits, ids, reduction="none")
    else:
        losses = marginal_cross_entropy(logits, ids, _log_members(task.space, logits.device).to(logits))
    weights = valid if weight is None else weight[ids].masked_fill(~valid, 0)
    floor = 1.0 if weight is None else 1e-6
    return (losses.masked_fill(~valid, 0) * weights).sum() / weights.sum().clamp_min(floor)
