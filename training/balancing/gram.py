"""The Gramian-based solvers of torchjd behind the balancer interface; the one file that knows torchjd.

torchjd's own backward functions are not used: they run one backward a task, past DDP's hooks.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor

from training.balancing.base import Balancer, Observation, TaskWeights, present


class GramBalancer(Balancer):
    """Equal heads; encoder weights by a solver on K.

    The solvers do not depend on the scale of K, but their tolerances do: they get K with mean diagonal 1, of
    the tasks that have a gradient (a zero gradient would be MGDA's answer to everything). Their weights,
    which sum to about 1, are multiplied by the number of those tasks; the others' weight is 1.
    """

    needs_gramian: ClassVar[bool] = True
    separate_encoder_weights: ClassVar[bool] = True

    @abstractmethod
    def solve(self, gramian: Tensor, step: int) -> Tensor:
        """Weights [T'] for K [T', T'], fp64 on the CPU, mean diagonal 1; equal gradients: 1 / T' each."""

    def forward(self, observation: Observation) -> TaskWeights:
        """Constant heads, solved encoder weights."""
        gradient_weights = torch.ones_like(observation.losses)
        among = present(observation.norms)
        count = int(among.sum())
        if count > 1:
            gram = observation.gram[among][:, among].double().cpu()
            solved = self.solve(gram / gram.diagonal().mean(), observation.step)
            gradient_weights[among] = count * solved.to(gradient_weights)
        return TaskWeights(torch.ones_like(observation.losses), gradient_weights)


Solver = Callable[[Tensor], Tensor]
"""K [T, T] -> weights [T]."""


def pcgrad_solver() -> Solver:
    """Projection of conflicting components in the order of the global random generator; weights sum to T."""
    from torchjd.aggregation import PCGradWeighting

    return PCGradWeighting()


def cagrad_solver(c: float) -> Solver:
    """The conic programme of CAGrad."""
    from torchjd.aggregation import CAGradWeighting

    return CAGradWeighting(c)


def aligned_mtl_solver() -> Solver:
    """Aligned principal components, scaled by the smallest singular value."""
    from torchjd.aggregation import AlignedMTLWeighting

    return AlignedMTLWeighting()


def upgrad_solver() -> Solver:
    """Mean of the projections onto the dual cone.

    The cone depends on the directions of the gradients alone and a projection grows with what is projected,
    so the cosines are solved: in K itself torchjd's regularisation would drown a short gradient.
    """
    from torchjd.linalg import PSDMatrix, QuadprogProjector

    project = QuadprogProjector()

    def solve(gramian: Tensor) -> Tensor:
        lengths = gramian.diagonal().sqrt()
        cosines = cast(PSDMatrix, gramian / lengths / lengths[:, None])
        projections = project(torch.eye(len(lengths)).to(gramian), cosines)
        return lengths @ projections / lengths / len(lengths)

    return solve
