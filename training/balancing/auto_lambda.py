"""Auto-lambda (Liu et al., "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR 2022)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.balancing.base import Observation, TaskWeights
from training.balancing.meta import Losses, MetaBalancer

REACH = 0.01
"""Length of the finite difference's step in parameter space."""


class AutoLambda(MetaBalancer):
    """Weights lambda that a gradient step on them would have made better for the primary tasks.

    With theta' = theta - alpha grad sum_i lambda_i L_i, the primaries' loss on a second batch at theta' has
    the derivative -alpha <d, grad L_i(theta)> by lambda_i, d being its gradient at theta'. The inner product
    is the central difference (L_i(theta + eps d) - L_i(theta - eps d)) / 2 eps, eps = 0.01 / |d|.
    Two forwards and backwards and two forwards, then the training step: 5 forwards, 3 backwards.

    The trial step is plain gradient descent. Half precision drowns the difference; run the closures in fp32.

    Args:
        tasks: T, or the task names.
        primary: primary task or tasks, by name or position; None: all.
        init: lambda at the start.
        lr: learning rate of lambda, stepped by the run's optimizer in the same step.
    """

    gradient: Tensor
    ready: Tensor

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
        self.lr = lr
        self.weights = nn.Parameter(torch.full((self.tasks,), init))
        self.register_buffer("gradient", torch.zeros(self.tasks))
        self.register_buffer("ready", torch.tensor(False))

    def forward(self, seen: Observation) -> TaskWeights:
        """lambda, and a penalty of value 0 that carries the meta-gradient to it.

        Raises:
            RuntimeError: no :meth:`meta_step` since the last time.
        """
        if not self.ready:
            raise RuntimeError(
                "auto_lambda learns in meta_step, which the trainer must call before each step"
            )
        self.ready.fill_(False)
        heads = self.weights.detach().clone()
        return TaskWeights(heads, penalty=((self.weights - heads) * self.gradient).sum())

    def meta_step(
        self,
        network: nn.Module,
        train: Losses,
        second: Losses,
        rate: float,
        average: Callable[[Tensor], Tensor] = lambda numbers: numbers,
    ) -> None:
        """See :class:`MetaBalancer`. All passes over the step's batch see the same random numbers."""
        parameters = [p for p in network.parameters() if p.requires_grad]
        start = [p.detach().clone() for p in parameters]
        with _unchanged(network) as rewind:
            losses, rest = train()
            trial = _gradient((self.weights.detach() * losses).sum() + rest, parameters, average)
            _move(parameters, start, trial, -rate)
            losses, _ = second()
            ahead = _gradient(losses[self.primaries].sum(), parameters, average)
            reach = REACH / torch.cat([d.flatten() for d in ahead]).norm()
            ends = []
            for end in (reach, -reach):
                rewind()
                _move(parameters, start, ahead, end)
                with torch.no_grad():
                    ends.append(train()[0])
        gradient = average(-rate * (ends[0] - ends[1]) / (2 * reach))
        self.gradient.copy_(torch.where(gradient.isfinite(), gradient, 0))
        self.ready.fill_(True)


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[Callable[[], None]]:
    """Put back parameters, buffers and random state at the end; yields what puts back the random state."""
    tensors = [*network.parameters(), *network.buffers()]
    kept = [tensor.detach().clone() for tensor in tensors]
    gpus = sorted({tensor.device.index for tensor in tensors if tensor.is_cuda})
    state, gpu_states = torch.get_rng_state(), [torch.cuda.get_rng_state(gpu) for gpu in gpus]

    def rewind() -> None:
        torch.set_rng_state(state)
        for gpu, gpu_state in zip(gpus, gpu_states, strict=True):
            torch.cuda.set_rng_state(gpu_state, gpu)

    try:
        yield rewind
    finally:
        rewind()
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


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
