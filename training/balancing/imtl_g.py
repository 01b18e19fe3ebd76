"""IMTL-G, the gradient half of IMTL (Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021)."""

from typing import ClassVar

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights, present


def impartial(gramian: Tensor) -> Tensor:
    """a [T], sum T: the combination whose projections onto all g_i / n_i are equal.

    K a = n, solved as a_i = (C^+ 1)_i / n_i with the cosines C: the same where C has full rank, and well
    conditioned where norms differ by orders of magnitude. The combination is kept a descent direction of all
    tasks where sum a is negative, and short where it nearly vanishes. Gradients in full opposition have no
    impartial direction: 0. Tasks without a gradient take no part; their weight is 1.
    """
    norms = gramian.diagonal().clamp_min(0).sqrt()
    among = present(norms)
    weights = torch.ones_like(norms)
    if not among.any():
        return weights
    lengths = norms[among].double()
    cosines = gramian[among][:, among].double() / lengths / lengths[:, None]
    solution = torch.linalg.pinv(cosines, rtol=1e-6, hermitian=True).sum(1) / (lengths / lengths.max())
    size = torch.maximum(solution.sum().abs(), 1e-3 * solution.abs().sum())
    if size <= 1e-9:
        weights[among] = 0
    else:
        weights[among] = (solution * among.sum() / size).to(weights)
    return weights


class IMTLG(Balancer):
    """Equal heads; the encoder follows the gradients' impartial combination."""

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True

    def forward(self, observation: Observation) -> TaskWeights:
        """Constant heads, closed-form encoder weights."""
        return TaskWeights(torch.ones_like(observation.losses), impartial(observation.gram))
