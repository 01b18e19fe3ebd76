"""UPGrad (Quinton & Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232)."""

from collections.abc import Sequence

from torch import Tensor

from training.balancing.gram import GramBalancer, upgrad_solver


class UPGrad(GramBalancer):
    """The mean of the gradients, each projected onto the cone that conflicts with no task (Eq. 3 there)."""

    def __init__(self, tasks: int | Sequence[str]) -> None:
        super().__init__(tasks)
        self._solver = upgrad_solver()

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The mean of the projections."""
        return self._solver(gramian)
