"""MGDA-UB (Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.weighting.gram import GramBalancer, mgda_solver

RIDGE = 1e-9
"""Added to the diagonal of K, which makes the answer unique: equal gradients get equal weights."""


class MGDA(GramBalancer):
    """Encoder weights T argmin a^T K a on the simplex (Alg. 2 there)."""

    def __init__(self, tasks: int | Sequence[str]) -> None:
        super().__init__(tasks)
        self._solver = mgda_solver()

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The minimiser."""
        return self._solver(gramian + RIDGE * torch.eye(len(gramian), dtype=gramian.dtype))
