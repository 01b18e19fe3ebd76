"""How far metrics can be trusted: what they would have been on other images of the same kind.

The bootstrap of Efron ("Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979): the
split is drawn again from its own images, with replacement, and a metric's deviation over such draws is its
standard error. Two networks are drawn the same images each time, so that what they have in common cancels
out of their difference.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.metrics.base import Report
from training.metrics.confidence import without_curve
from training.metrics.evaluation import Evaluation
from training.tasks import Task

States = list[dict[str, Tensor]]
RESAMPLES: Final = 500
"""Draws that standard errors are taken of; their own error is 3 %."""
_AT_ONCE: Final = 50  # draws whose states are in memory at a time


class ImageByImage(Evaluation):
    """An `Evaluation` that keeps what each image adds to its states, all of which are sums."""

    def __init__(
        self, tasks: Sequence[Task], per_class: bool = False, confident: Sequence[Task] = ()
    ) -> None:
        super().__init__(tasks, per_class, confident)
        self._images: list[States] = []

    def update(
        self,
        outputs: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        confidences: Mapping[str, Tensor] | None = None,
    ) -> None:
        """See `Evaluation.update`."""
        for index in range(len(next(iter(outputs.values())))):
            one = slice(index, index + 1)
            self.reset()
            super().update(
                {name: value[one] for name, value in outputs.items()},
                {name: value[one] for name, value in batch.items()},
                None if confidences is None else {name: value[one] for name, value in confidences.items()},
            )
            self._images.append([{key: value.cpu() for key, value in each.items()} for each in self.states()])

    def compute(self) -> Report:
        """See `Evaluation.compute`."""
        if not self._images:
            return super().compute()
        (everything,) = self._sums(torch.ones(1, len(self._images), dtype=torch.float64))
        self.restore(everything)
        return super().compute()

    def resampled(self, draws: Tensor) -> Iterator[Report]:
        """The metrics for each of ``draws`` [R,N]: how often each of the N images so far is in it."""
        for some in torch.split(draws, _AT_ONCE):
            for states in self._sums(some):
                self.restore(states)
                yield super().compute()

    def draws(self, times: int, seed: int = 0) -> Tensor:
        """``times`` draws of as many images as there are; of those with the same labels as many as there are.

        Float64 [times, images].
        """
        alike: dict[tuple[bool, ...], list[int]] = defaultdict(list)
        for index, states in enumerate(self._images):
            labelled = tuple(any(bool(value.any()) for value in each.values()) for each in states)
            alike[labelled].append(index)
        random = np.random.default_rng(seed)
        found = np.zeros((times, len(self._images)))
        for images in alike.values():
            each = np.full(len(images), 1 / len(images))
            found[:, images] = random.multinomial(len(images), each, times)
        return torch.from_numpy(found)

    def _sums(self, draws: Tensor) -> Iterator[States]:
        """The states of each of ``draws``."""
        sums: States = [{} for _ in self._images[0]]
        for at, found in enumerate(sums):
            for name, value in self._images[0][at].items():
                each = torch.stack([image[at][name] for image in self._images]).double()
                summed = draws @ each.reshape(len(each), -1)
                found[name] = summed.reshape(len(draws), *value.shape).to(value.dtype)
        for index in range(len(draws)):
            yield [{key: value[index] for key, value in each.items()} for each in sums]


def standard_errors(found: Sequence[Report]) -> Report:
    """The deviation of each metric over the reports of many draws, of those that have it."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for report in found:
        for task, metrics in report.items():
            for name, value in without_curve(metrics).items():
                values[task][name].append(value)
    return {
        task: {name: float(np.std(each, ddof=1)) for name, each in metrics.items() if len(each) > 1}
        for task, metrics in values.items()
    }


def difference(one: Report, other: Report) -> Report:
    """``one`` less ``other``, of the metrics that both have."""
    return {
        task: {
            name: value - other[task][name]
            for name, value in without_curve(metrics).items()
            if name in without_curve(other[task])
        }
        for task, metrics in one.items()
        if task in other
    }
