"""CAGrad (Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.balancing.gram import GramBalancer, cagrad_solver


class CAGrad(GramBalancer):
    """The direction of best worst-case improvement within c |g_0| of the mean gradient g_0 (Alg. 1 there).

    Divided by 1 + c, the length it has over g_0 when all gradients agree. ``c`` = 0 is the mean. So is the
    answer where the worst combination is shorter than 1e-4 of all gradients together, by cancellation or as
    one task has next to no gradient: its direction is rounding then.

    Raises:
        ValueError: ``c`` negative.
    """

    def __init__(self, tasks: int | Sequence[str], c: float = 0.4) -> None:
        super().__init__(tasks)
        self.c = c
        self._solver = cagrad_solver(c)

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The mean's weights and the correction's."""
        weights = self._solver(gramian)
        if not weights.any():  # torchjd's answer to a combination that short
            weights = torch.full_like(weights, 1 / len(weights))
        return weights / (1 + self.c)
