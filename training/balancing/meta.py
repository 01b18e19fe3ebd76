"""Balancers that look ahead: they try a step on the training batch and judge it on a second one."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from training.balancing.base import Balancer

Losses = Callable[[], tuple[Tensor, Tensor]]
"""A forward pass of the network as it is: T final-task losses and the scalar sum of all unweighted terms."""


class MetaBalancer(Balancer):
    """A balancer whose :meth:`meta_step` the trainer calls before each training step.

    The trainer hands in the bare network (not its DDP wrapper: hooks must not fire), two closures that run it
    on the step's batch and on a second batch, and the step's learning rates. ``forward`` then
    gives the result.
    """

    @abstractmethod
    def meta_step(
        self,
        network: nn.Module,
        train: Losses,
        second: Losses,
        rate: float | Mapping[nn.Parameter, float],
        average: Callable[[Tensor], Tensor] = lambda numbers: numbers,
    ) -> None:
        """Learn from a trial step; parameters, buffers and random state of ``network`` come back unchanged.

        Args:
            network: whose parameters the closures use.
            train: losses on the step's batch.
            second: losses on the second batch.
            rate: alpha, the learning rate of the trial step, of all parameters or of each.
            average: averages a tensor over the ranks.
        """
