"""What an epoch adds up: losses, labels and weights by task, and the steps that taught nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.balancing import StepResult


class Tally:
    """Sums over the steps of an epoch, kept on the device; the same on every rank, as the results are.

    Attributes:
        skipped: steps whose loss or gradient was not finite.
        empty: steps without any label.
    """

    def __init__(self, tasks: int, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(5, tasks, dtype=torch.float64, device=device)
        self.skipped = self.empty = 0

    def add(self, result: StepResult, counts: Tensor) -> None:
        """Count a step where the bool scalar ``counts`` says that it taught something."""
        seen = result.supervised
        rows = torch.stack(
            [
                result.losses * seen,
                seen.to(result.losses),
                result.loss_weights,
                result.gradient_weights,
                torch.ones_like(result.losses),
            ]
        )
        self._sums += rows.detach().masked_fill(~counts, 0)

    @property
    def labelled(self) -> list[int]:
        """Steps with a label of each task."""
        return [int(count) for count in self._sums[1].tolist()]

    @property
    def losses(self) -> Tensor:
        """Mean loss of each task over the steps that had a label, float32 [T]; NaN where none had."""
        total, count = self._sums[:2]
        return torch.where(count > 0, total / count, torch.nan).float()

    @property
    def loss_weights(self) -> Tensor:
        """Mean task weights [T]."""
        return self._sums[2] / self._sums[4].clamp_min(1)

    @property
    def gradient_weights(self) -> Tensor:
        """Mean weights of the encoder's gradients [T]."""
        return self._sums[3] / self._sums[4].clamp_min(1)

    def row(self, tasks: Sequence[str], gradient_weights: bool) -> dict[str, Any]:
        """The columns of ``history.csv`` that an epoch fills, of the ``tasks`` in head order."""
        row: dict[str, Any] = {"skipped": self.skipped, "empty": self.empty}
        columns = {"loss": self.losses.tolist(), "weight": self.loss_weights.tolist()}
        if gradient_weights:
            columns["encoder_weight"] = self.gradient_weights.tolist()
        for index, (task, labelled) in enumerate(zip(tasks, self.labelled, strict=True)):
            row |= {f"{name}/{task}": round(values[index], 5) for name, values in columns.items()}
            row[f"labelled/{task}"] = labelled
        return row

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"sums": self._sums.cpu(), "counts": [self.skipped, self.empty]}

    def load(self, sums: Tensor, counts: Sequence[int]) -> None:
        """Go on from :meth:`state`."""
        self._sums.copy_(sums)
        self.skipped, self.empty = counts
