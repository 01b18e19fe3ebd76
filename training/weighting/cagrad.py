"""CAGrad (Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021)."""

from collections.abc import Sequence

from torch import Tensor

from training.weighting.gram import GramBalancer, cagrad_solver


class CAGrad(GramBalancer):
    """The direction of best worst-case improvement within c |g_0| of the mean gradient g_0 (Alg. 1 there).

    Divided by 1 + c, the length it has over g_0 when all gradients agree. ``c`` = 0 is the mean.

    Raises:
        ValueError: ``c`` negative.
    """

    def __init__(self, tasks: int | Sequence[str], c: float = 0.4) -> None:
        super().__init__(tasks)
        self.c = c
        self._solver = cagrad_solver(c)

    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """The mean's weights and the correction's."""
        return self._solver(gramian) / (1 + self.c)
