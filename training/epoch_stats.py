"""What an epoch adds up: losses, labels and weights by task, and the steps that taught nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.training_step import Outcome


class Tally:
    """Sums over the steps of an epoch; the same on every rank, as the outcomes are.

    Attributes:
        skipped: steps whose loss or gradient was not finite.
        empty: steps without any label.
    """

    def __init__(self, tasks: int) -> None:
        self._sums = torch.zeros(4, tasks, dtype=torch.float64)
        self.steps = self.skipped = self.empty = 0

    def add(self, outcome: Outcome) -> None:
        """Count a step that taught something."""
        seen = outcome.supervised
        rows = torch.stack([outcome.losses * seen, seen.to(outcome.losses), outcome.heads, outcome.encoder])
        self._sums += rows.detach().cpu()
        self.steps += 1

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
    def heads(self) -> Tensor:
        """Mean task weights [T]."""
        return self._sums[2] / max(1, self.steps)

    @property
    def encoder(self) -> Tensor:
        """Mean weights of the encoder's gradients [T]."""
        return self._sums[3] / max(1, self.steps)

    def state(self) -> dict[str, object]:
        """For a checkpoint."""
        return {"sums": self._sums, "counts": [self.steps, self.skipped, self.empty]}

    def load(self, sums: Tensor, counts: Sequence[int]) -> None:
        """Go on from :meth:`state`."""
        self._sums = sums.clone()
        self.steps, self.skipped, self.empty = counts
