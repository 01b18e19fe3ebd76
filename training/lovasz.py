"""The Lovász-softmax loss: a convex surrogate of intersection over union, which label maps are scored by.

Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss: a tractable surrogate for the optimization of the
intersection-over-union measure in neural networks" (CVPR 2018, Eq. 8, 9 and 12), over the sets of the batch
that are present. They use it to finish networks that cross-entropy has trained; so does this project.

Here a label is a set of classes (see `training.label_spaces.targets`), and the probability of a set is the
sum of those of its classes. A pixel counts for a set as foreground if it is labelled with just that set, as
background if its own set has no class in common with it, and not at all if it may or may not belong to it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from training.label_spaces import IGNORE_LABEL, LabelSpace

STRIDE = 2
"""Every so many rows and columns of what cross-entropy sees; sorting all takes 4 times as long."""


@dataclass(frozen=True)
class _Sets:
    """The distinct sets of a space's targets: which classes are in each, and what target ids say of them.

    ``members`` float [U, K]; ``same`` and ``apart`` bool [S, U]: whether target s is set u, or surely is not.
    """

    members: Tensor
    same: Tensor
    apart: Tensor


@lru_cache(maxsize=64)
def _sets(space: LabelSpace, device: torch.device) -> _Sets:
    members = space.targets.members
    distinct, index = np.unique(members, axis=0, return_inverse=True)
    same = index.reshape(-1, 1) == np.arange(len(distinct))
    apart = ~(members[:, None] & distinct).any(-1)
    of_classes, is_same, is_apart = (torch.from_numpy(x).to(device) for x in (distinct, same, apart))
    return _Sets(of_classes.float(), is_same, is_apart)


def lovasz_softmax(logits: Tensor, targets: Tensor, space: LabelSpace) -> Tensor:
    """Mean over the sets that are present of the Lovász extension of 1 - IoU, 0 to 1; 0 without a label.

    Args:
        logits: float32 [B, K, H, W].
        targets: target ids [B, H, W] of ``space``, uint8 or int64 (255 ignore).
        space: says which classes each target id may be.
    """
    first = min(STRIDE // 2, *(side - 1 for side in targets.shape[-2:]))
    logits = logits[..., first::STRIDE, first::STRIDE]
    targets = targets[..., first::STRIDE, first::STRIDE]
    sets = _sets(space, logits.device)
    labelled = targets.flatten() != IGNORE_LABEL
    ids = targets.flatten().long().masked_fill(~labelled, 0)
    scores = logits.movedim(1, -1).flatten(0, -2).masked_fill(~labelled[:, None], 0)
    probabilities = sets.members @ scores.softmax(-1).T
    foreground = sets.same.T[:, ids] & labelled
    background = sets.apart.T[:, ids] & labelled
    errors = torch.where(foreground, 1 - probabilities, probabilities) * (foreground | background)
    errors, order = errors.sort(dim=1, descending=True)
    with torch.no_grad():
        hits = foreground.gather(1, order).float()
        present = hits.sum(1) > 0
        weights = _jaccard_gradient(hits)
    losses = (errors * weights).sum(1)
    return (losses * present).sum() / present.sum().clamp_min(1)


def _jaccard_gradient(hits: Tensor) -> Tensor:
    """By how much 1 - IoU grows with each pixel [U, N] that is wrong too, in their order (Algorithm 1)."""
    total = hits.sum(1, keepdim=True)
    union = total + (1 - hits).cumsum(1)
    loss = 1 - (total - hits.cumsum(1)) / union.clamp_min(1)
    return torch.cat([loss[:, :1], loss.diff(dim=1)], 1)
