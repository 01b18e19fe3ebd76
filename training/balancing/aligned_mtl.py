"""Aligned-MTL (Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.balancing.gram import GramBalancer, aligned_mtl_solver


class AlignedMTL(GramBalancer):
    """The mean of the gradients, principal components cut to the smallest singular value (Alg. 1 there).

    Components below the rounding of fp32, in which K was made, count as absent: the solver then gets K in
    fp32, whose tolerance that is.
    """

    def __init__(self, tasks: int | Sequence[str]) -> None:
        super().__init__(tasks)
        self._solver = aligned_mtl_solver()

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The balance transformation's weights."""
        eigenvalues = torch.linalg.eigvalsh(gramian)
        rounding = len(gramian) * torch.finfo(torch.float32).eps * eigenvalues[-1]
        return self._solver(gramian if eigenvalues[0] > rounding else gramian.float())
