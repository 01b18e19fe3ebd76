"""The one interface of all balancing methods: what a method sees, and what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Observation:
    """What a balancer may look at: detached, in fp32, averaged over the ranks.

    ``losses`` is [T]; entries of tasks without a label in the batch are 0. ``gramian`` is K [T, T], K_ij =
    <g_i, g_j> with g_i = dL_i/dz, z the shared representation; rows of tasks without a gradient are 0. It is
    there if the method's ``needs_gramian`` says so.
    """

    losses: Tensor
    epoch: int
    step: int
    gramian: Tensor | None = None

    @property
    def gram(self) -> Tensor:
        """The Gramian of a method that needs one.

        Raises:
            ValueError: there is none.
        """
        if self.gramian is None:
            raise ValueError("this balancing method needs the Gramian of the task gradients; use the Engine")
        return self.gramian

    @property
    def norms(self) -> Tensor:
        """n [T]: the gradient norms |g_i|."""
        return self.gram.diagonal().clamp_min(0).sqrt()


@dataclass(frozen=True)
class TaskWeights:
    """What multiplies the task losses in the one backward pass.

    ``loss_weights`` [T] weigh each loss where it reaches decoders and heads; they may carry a gradient to the
    method's parameters. ``gradient_weights`` [T] weigh the gradients g_i of the shared representation, None:
    as ``loss_weights``. ``penalty`` is a scalar added to the objective, through which a method's parameters
    learn.
    """

    loss_weights: Tensor
    gradient_weights: Tensor | None = None
    penalty: Tensor | float = 0.0


@dataclass(frozen=True)
class TaskLosses:
    """The terms of a step's objective (Eq. 7), fp32 scalars.

    ``losses`` are the T losses of the final predictions, best as separate scalars: through a stacked tensor
    the gradient of one task visits the decoders of all. ``aux_losses`` are the T sums of each task's
    intermediate losses, ``coherence_loss`` couples the tasks. ``supervised`` [T], bool, says which tasks have
    a label in the batch, whichever rank holds it; a task without one has loss 0.
    """

    losses: Sequence[Tensor]
    aux_losses: Sequence[Tensor]
    coherence_loss: Tensor
    supervised: Tensor


class StepResult(NamedTuple):
    """A balanced step, on the device; the same on every rank but for ``total``.

    ``total`` is the scalar to call backward on once. ``losses`` [T] are the raw final losses, averaged over
    the ranks; ``loss_weights`` [T] what multiplied them, ``gradient_weights`` [T] what multiplied their
    gradients at the shared representation; all detached. ``supervised`` [T] is that of the losses. ``finite``
    is a bool scalar: False says that some loss is not finite, ``total`` neither, and that the balancer saw a
    step without labels.
    """

    total: Tensor
    losses: Tensor
    loss_weights: Tensor
    gradient_weights: Tensor
    supervised: Tensor
    finite: Tensor


class Balancer(nn.Module, ABC):
    """A balancing method: never calls backward, keeps its state in buffers and parameters.

    So it is tested without a network, and checkpoints resume exactly. ``tasks`` is T, or the task names in
    head order where options name tasks.
    """

    needs_gramian: ClassVar[bool] = False
    """Whether the method reads ``Observation.gramian``."""
    separate_encoder_weights: ClassVar[bool] = False
    """Whether it may give ``TaskWeights.gradient_weights``."""
    lr: float | None = None
    """The learning rate its parameters ask for; None: the run's."""
    first_epoch: int = 0
    """The first epoch, counted from 0, whose weights may differ from those at the start."""

    def __init__(self, tasks: int | Sequence[str]) -> None:
        super().__init__()
        self.names = [str(i) for i in range(tasks)] if isinstance(tasks, int) else list(tasks)
        self.tasks = len(self.names)

    def learn_at(self, lr: float | None) -> None:
        """Have the parameters of the method learn at ``lr``; None: at the run's rate.

        Raises:
            ValueError: it is negative.
        """
        if lr is not None and lr < 0:
            raise ValueError(f"lr must not be negative, got {lr}")
        self.lr = lr

    def index(self, task: int | str) -> int:
        """The position of a task given by name or position.

        Raises:
            ValueError: there is no such task.
        """
        if isinstance(task, int) and 0 <= task < self.tasks:
            return task
        if task in self.names:
            return self.names.index(str(task))
        raise ValueError(f"no task {task!r}; there are {self.tasks}: {', '.join(self.names)}")

    @abstractmethod
    def forward(self, observation: Observation) -> TaskWeights:
        """The weights of this step; called once a step, for a method may keep averages."""

    def settled(self, step: int) -> bool:
        """Whether the weights no longer change: a method that needs the Gramian is then not asked again."""
        return False

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Learn from the epoch's mean losses [T]; NaN marks a task that had no label in the epoch."""


def present(values: Tensor) -> Tensor:
    """Which tasks [T] took part in the step: those with a positive finite loss or gradient norm."""
    return (values > 0) & values.isfinite()


def sum_to_count(weights: Tensor, among: Tensor) -> Tensor:
    """``weights`` [T] scaled to sum to their number within the mask ``among``, and 1 elsewhere."""
    total = weights.masked_fill(~among, 0).sum()
    scaled = weights * (among.sum() / total)
    return scaled.masked_fill(~(among & (total > 0)), 1)
