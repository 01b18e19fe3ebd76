"""Auto-lambda (Liu et al., "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR 2022)."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.balancing.base import Observation, TaskWeights
from training.balancing.meta import Losses, MetaBalancer
from training.unchanged import unchanged

REACH = 0.01
"""Length of the finite difference's step in parameter space."""


class AutoLambda(MetaBalancer):
    """Weights lambda that a step of Adam has made better for the primary tasks before each training step.

    With theta' = theta - alpha grad sum_i lambda_i L_i, the primaries' loss on a second batch at theta' has
    the derivative -<alpha d, grad L_i(theta)> by lambda_i, d being its gradient at theta' and alpha the
    learning rate of each parameter. The inner product is the central difference (L_i(theta + eps alpha d) -
    L_i(theta - eps alpha d)) / 2 eps, eps = 0.01 / |alpha d|. As in the published code, lambda takes its step
    at once and the training step weighs with the new lambda. Two forwards and backwards and two forwards,
    then the training step: 5 forwards, 3 backwards.

    The trial step is plain gradient descent. Half precision drowns the difference; run the closures in fp32.

    Args:
        tasks: T, or the task names.
        primary: primary task or tasks, by name or position; None: all.
        init: lambda at the start.
        lr: learning rate of lambda's Adam.

    Raises:
        ValueError: an unknown task, no primary task, or ``init`` not positive, or ``lr`` negative.
    """

    weights: Tensor
    gradient: Tensor
    moments: Tensor
    updates: Tensor

    def __init__(
        self,
        tasks: int | Sequence[str],
        primary: int | str | Sequence[int | str] | None = None,
        init: float = 0.1,
        lr: float = 1e-4,
    ) -> None:
        super().__init__(tasks)
        chosen = [primary] if isinstance(primary, int | str) else primary
        self.primaries = [self.index(task) for task in (range(self.tasks) if chosen is None else chosen)]
        if not self.primaries:
            raise ValueError("primary must name at least one task")
        if init <= 0 or lr < 0:
            raise ValueError(f"init must be positive and lr not negative, got {init} and {lr}")
        self.meta_lr = lr
        self.register_buffer("weights", torch.full((self.tasks,), init))
        self.register_buffer("gradient", torch.zeros(self.tasks))
        self.register_buffer("moments", torch.zeros(2, self.tasks))
        self.register_buffer("updates", torch.tensor(0.0))
        self._ready = False

    def forward(self, observation: Observation) -> TaskWeights:
        """lambda as :meth:`meta_step` left it.

        Raises:
            RuntimeError: no :meth:`meta_step` since the last time.
        """
        if not self._ready:
            raise RuntimeError(
                "auto_lambda learns in meta_step, which the trainer must call before each step"
            )
        self._ready = False
        return TaskWeights(self.weights.clone())

    def meta_step(
        self,
        network: nn.Module,
        train: Losses,
        second: Losses,
        rate: float | Mapping[nn.Parameter, float],
        average: Callable[[Tensor], Tensor] = lambda numbers: numbers,
    ) -> None:
        """See :class:`MetaBalancer`. All passes over the step's batch see the same random numbers."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in parameters]
        with unchanged(network) as rewind:
            losses, rest = train()
            trial = _gradient((self.weights.detach() * losses).sum() + rest, parameters, average)
            rates = [rate[p] if isinstance(rate, Mapping) else rate for p in parameters]
            _move(parameters, start, [alpha * g for alpha, g in zip(rates, trial, strict=True)], -1.0)
            losses, _ = second()
            ahead = _gradient(losses[self.primaries].sum(), parameters, average)
            along = [alpha * d for alpha, d in zip(rates, ahead, strict=True)]
            reach = REACH / torch.cat([d.flatten() for d in along]).norm()
            ends = []
            for end in (reach, -reach):
                rewind()
                _move(parameters, start, along, end)
                with torch.no_grad():
                    ends.append(train()[0])
        self._learn(average((ends[1] - ends[0]) / (2 * reach)))
        self._ready = True

    def _learn(self, gradient: Tensor) -> None:
        """A step of Adam (its usual constants, no decay); what is not finite in the gradient counts 0."""
        self.gradient.copy_(gradient.masked_fill(~gradient.isfinite(), 0))
        self.updates += 1
        self.moments[0].lerp_(self.gradient, 0.1)
        self.moments[1].lerp_(self.gradient.square(), 0.001)
        mean = self.moments[0] / (1 - 0.9**self.updates)
        spread = (self.moments[1] / (1 - 0.999**self.updates)).sqrt()
        self.weights -= self.meta_lr * mean / (spread + 1e-8)


def _gradient(
    loss: Tensor, parameters: list[nn.Parameter], average: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The loss' gradient, averaged over the ranks in one go."""
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(flat, [p.numel() for p in parameters])
    return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]


@torch.no_grad()
def _move(
    parameters: list[nn.Parameter], start: list[Tensor], direction: list[Tensor], length: Tensor | float
) -> None:
    """Parameters := start + length * direction."""
    for parameter, origin, along in zip(parameters, start, direction, strict=True):
        parameter.copy_(origin + length * along)
