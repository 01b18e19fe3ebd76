"""MGDA-UB (Sener & Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018)."""

import torch
from scipy.optimize import nnls
from torch import Tensor

from training.balancing.gram import GramBalancer

RIDGE = 1e-7
"""Least eigenvalue of the cosines, which makes the answer unique: equal gradients get equal weights."""


class MGDA(GramBalancer):
    """Encoder weights T argmin a^T K a on the simplex (problem MGDA-UB there), exactly.

    The paper's Frank-Wolfe iterations (Alg. 2) come near slowly where more than two tasks share the answer.
    """

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The minimiser.

        It is y / sum(y) for the y >= 0 that minimises y^T K y / 2 - sum(y): non-negative least squares on a
        square root of K, here of the cosines, so that lengths may differ by orders of magnitude.
        """
        lengths = gramian.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(gramian / lengths / lengths[:, None])
        root = values.clamp_min(RIDGE).sqrt()
        aim = vectors.T @ lengths.reciprocal() / root
        shares, _ = nnls((root[:, None] * vectors.T).numpy(), aim.numpy())
        weights = torch.from_numpy(shares) / lengths
        return weights / weights.sum()
