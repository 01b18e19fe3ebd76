"""Weights of classes in the cross-entropy: given, or computed from how rare each is in the training data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from training.data import Mixture
from training.label_spaces import IGNORE_LABEL, Targets
from training.strict import Strict
from training.tasks import Task

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RareClassRule(Strict):
    """Weights from frequency: (1 / pixel share) ** ``power``, mean 1 over the pixels, at most ``cap``."""

    power: float = Field(0.5, ge=0, le=1)
    cap: float = Field(8.0, ge=1)


ClassWeightSetting = tuple[Factor, ...] | RareClassRule
"""A weight for each of the network's classes, or the rule that computes them from the training data."""


@dataclass(frozen=True)
class ClassWeights:
    """``targets`` [S]: the weight of each target id; ``classes`` [K]: of each class of the network."""

    targets: Tensor
    classes: tuple[float, ...]


def given_weights(task: Task, values: Sequence[float]) -> ClassWeights:
    """One weight a class of the network; a label that is a set of classes has the least weight in it."""
    members = _targets(task).members
    weights = np.where(members, np.asarray(values, np.float64), np.inf).min(1)
    return ClassWeights(torch.from_numpy(weights).float(), tuple(values))


def rare_class_weights(task: Task, mixture: Mixture, rule: RareClassRule) -> ClassWeights:
    """Weights by how rare classes are in what ``mixture`` draws, in each label space for itself.

    The share of a class is that of the labelled pixels of the images labelled in its space, each image
    counted as often as it is drawn. A class that no image shows has weight 1. A class of the network has the
    weight of the narrowest label that means it, the geometric mean where several spaces have one.

    Raises:
        LabelError: a label file cannot be used.
    """
    targets = _targets(task)
    drawn = _drawn(task, mixture)
    weights = np.ones(len(targets.members))
    seen = np.zeros(len(targets.members), np.bool_)
    for part in targets.parts.values():
        ids = np.flatnonzero(part.classes[: len(weights)] != IGNORE_LABEL)
        shares = np.bincount(part.classes[ids], drawn[ids], minlength=len(part.members))
        if not shares.any():
            continue
        shares = shares / shares.sum()
        factors = np.ones(len(shares))
        factors[shares > 0] = shares[shares > 0] ** -rule.power
        factors /= factors @ shares
        factors[shares == 0] = 1.0
        weights[ids] = np.minimum(factors, rule.cap)[part.classes[ids]]
        seen[part.table[np.flatnonzero(shares)]] = True
    return ClassWeights(torch.from_numpy(weights).float(), _by_class(targets.members, weights, seen))


def resolve(
    settings: Mapping[str, ClassWeightSetting], tasks: Sequence[Task], mixture: Mixture
) -> dict[str, ClassWeights]:
    """The class weights of each task that ``settings`` names.

    Raises:
        LabelError: a label file that a rule looks at cannot be used.
    """
    by_name = {task.name: task for task in tasks}
    return {
        name: rare_class_weights(by_name[name], mixture, setting)
        if isinstance(setting, RareClassRule)
        else given_weights(by_name[name], setting)
        for name, setting in settings.items()
    }


def _targets(task: Task) -> Targets:
    assert task.space is not None
    return task.space.targets


def _drawn(task: Task, mixture: Mixture) -> NDArray[np.float64]:
    """How much of each target id [S] an epoch draws, in images."""
    total = np.zeros(IGNORE_LABEL)
    for source, mass in zip(mixture.sources, mixture.masses, strict=True):
        counts = source.target_counts(task.name)
        total += mass @ (counts / np.maximum(1, counts.sum(1, keepdims=True)))
    return total[: len(_targets(task).members)]


def _by_class(
    members: NDArray[np.bool_], weights: NDArray[np.float64], seen: NDArray[np.bool_]
) -> tuple[float, ...]:
    sizes = np.where(seen, members.sum(1), np.inf)[:, None]
    sizes = np.where(members, sizes, np.inf)
    narrowest = np.isfinite(sizes) & (sizes == sizes.min(0))
    logs = np.where(narrowest, np.log(weights)[:, None], 0.0).sum(0) / np.maximum(1, narrowest.sum(0))
    return tuple(float(f"{value:.4g}") for value in np.exp(logs))
