"""Where a map is right, by the usual criterion of its kind: what a confidence is the probability of."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.label_spaces import IGNORE_LABEL
from training.tasks import IGNORE_PROBABILITY, INVALID_DEPTH, Kind, Task

FACTOR = 1.25
"""Depth is right within this factor of the truth, as in delta < 1.25 (Eigen et al., arXiv 1406.2283)."""
DEGREES = 22.5
"""A normal is right below this angle to the truth, the middle one of the field's three thresholds."""
HALF = 0.5
"""Probabilities are right on the label's side of this."""

Judgement = tuple[Tensor, Tensor]
"""Two bool maps [B,H,W]: where the map is right, and where its label tells."""


def judge(task: Task, output: Tensor, target: Tensor) -> Judgement:
    """Where ``output`` is right; a map and a label as for `Evaluation.update`."""
    return CRITERIA[task.kind](task, output, target)


def _labels(task: Task, output: Tensor, target: Tensor) -> Judgement:
    """A class that the label allows: a target id of another label space may stand for several classes."""
    assert task.space is not None
    members = torch.from_numpy(task.space.targets.members).to(output.device)
    known = target != IGNORE_LABEL
    ids = torch.where(known, target, 0).long()
    return members[ids, output.long()] & known, known


def _depth(_task: Task, output: Tensor, target: Tensor) -> Judgement:
    truth = target[:, 0].float()
    known = truth > INVALID_DEPTH
    found = output.float()
    return (found < FACTOR * truth) & (truth < FACTOR * found) & known, known


def _normals(_task: Task, output: Tensor, target: Tensor) -> Judgement:
    truth = target.float()
    known = (truth != 0).any(1)
    cosine = (F.normalize(output.float(), dim=-1) * F.normalize(truth, dim=1).movedim(1, -1)).sum(-1)
    least = torch.deg2rad(torch.tensor(DEGREES)).cos().to(cosine)
    return (cosine > least) & known, known


def _probability(_task: Task, output: Tensor, target: Tensor) -> Judgement:
    truth = target[:, 0].float()
    known = truth > IGNORE_PROBABILITY
    return ((output.float() > HALF) == (truth > HALF)) & known, known


CRITERIA: dict[Kind, Callable[[Task, Tensor, Tensor], Judgement]] = {
    "labels": _labels,
    "depth": _depth,
    "normals": _normals,
    "probability": _probability,
}
"""By kind of task. The words for people are ``criterion`` of the kind in `mtcp_serve.kinds`."""
