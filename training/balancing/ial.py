"""Impartial auxiliary learning (Li et al., "Unprejudiced Training Auxiliary Tasks Makes Primary Better")."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.balancing.base import Balancer, Observation, TaskWeights, present

Map = Literal["relu", "softplus", "exp"]
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "softplus": functional.softplus,
    "exp": torch.exp,
}


class IAL(Balancer):
    """Impartial heads, an encoder that serves the primary task.

    Heads: sum_t L_t / (2 sigma_t^2) + log sigma_t (Eq. 3), whichever task is primary. Encoder: g_p + sum_t
    f(sigma_t) (n_p / n_t) g_t over the auxiliary tasks (Eq. 7-8), f(x) = min(1, g(1 - x)) (Eq. 9), sigma
    without a gradient. Without a label of the primary task in the batch n_p = 0 and the encoder rests.

    Args:
        tasks: T, or the task names.
        primary: the primary task, by name or position.
        map: g, which the paper leaves open but for its range: ``relu``, ``softplus`` or ``exp``.
        lr: learning rate of log sigma^2; None: the run's.

    Raises:
        ValueError: an unknown task or map, or a negative ``lr``.
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True

    def __init__(
        self, tasks: int | Sequence[str], primary: int | str = 0, map: Map = "relu", lr: float | None = None
    ) -> None:
        super().__init__(tasks)
        self.learn_at(lr)
        if map not in get_args(Map):
            raise ValueError(f"map must be one of {get_args(Map)}, got {map!r}")
        self.primary, self.map = self.index(primary), MAPS[map]
        self.log_variance = nn.Parameter(torch.zeros(self.tasks))

    def forward(self, observation: Observation) -> TaskWeights:
        """Heads and penalty with a gradient to log sigma^2, encoder weights without."""
        norms = observation.norms
        sigma = (0.5 * self.log_variance.detach()).exp()
        trust = self.map(1 - sigma).clamp_max(1)
        gradient_weights = torch.where(norms > 0, trust * norms[self.primary] / norms, 0)
        gradient_weights[self.primary] = 1
        penalty = 0.5 * (self.log_variance * present(observation.losses)).sum()
        return TaskWeights(0.5 * torch.exp(-self.log_variance), gradient_weights, penalty)
