"""What became of the latest steps: written down on the device, read back for many steps at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.balancing import StepResult


@dataclass(frozen=True)
class StepRecord:
    """A step as the host knows it.

    ``losses`` and ``loss_weights`` are by task, ``images`` the ids of this rank's. ``finite`` and
    ``supervised`` are about the losses, ``overflowed`` says that the update after finite losses had a
    gradient that is not, ``updated`` that the step changed the weights.
    """

    step: int
    images: Sequence[str]
    lr: float
    losses: Sequence[float]
    loss_weights: Sequence[float]
    finite: bool
    supervised: bool
    overflowed: bool
    updated: bool


class StepRecords:
    """Rows of numbers on the device, one per step; :meth:`read` is the one place that waits for them."""

    def __init__(self) -> None:
        self._known: list[tuple[int, Sequence[str], float]] = []
        self._rows: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        step: int,
        images: Sequence[str],
        lr: float,
        result: StepResult,
        update: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Write a step down; ``update`` are ``overflowed`` and ``updated`` of a step that ends with one."""
        none = torch.zeros_like(result.finite)
        flags = torch.stack([result.finite, result.supervised.any(), *(update or (none, none))])
        row = torch.cat([result.losses, result.loss_weights, flags.to(result.losses)])
        self._known.append((step, images, lr))
        self._rows.append(row.detach())

    def read(self) -> list[StepRecord]:
        """All steps since the last time, by one transfer from the device."""
        if not self._rows:
            return []
        rows, known = torch.stack(self._rows).tolist(), self._known
        self._rows, self._known = [], []
        return [_record(*about, row) for about, row in zip(known, rows, strict=True)]


def _record(step: int, images: Sequence[str], lr: float, row: list[float]) -> StepRecord:
    numbers, flags = row[:-4], [bool(flag) for flag in row[-4:]]
    tasks = len(numbers) // 2
    return StepRecord(step, images, lr, numbers[:tasks], numbers[tasks:], *flags)
