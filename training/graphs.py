"""CUDA graphs of a training step: the host launches it as four graphs instead of as thousands of operators.

Encoding is one graph, decoding with the objective another, each with its backward pass; balancing, which
works between the two, and the optimizer stay as they are. A graph belongs to one size of a batch.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from training.balancing import Balancer, TaskLosses
from training.balancing.meta import MetaBalancer
from training.config import RunConfig
from training.data import Batch
from training.model import Network
from training.objective import Objective
from training.unchanged import unchanged

log = logging.getLogger(__name__)

Autocast = Callable[[], AbstractContextManager[object]]


def refusal(config: RunConfig, device: torch.device, ranks: int, balancer: Balancer) -> str | None:
    """Why a run cannot use CUDA graphs; None: it can."""
    if device.type != "cuda":
        return f"the device is {device.type}, not cuda"
    several_passes = (
        balancer.needs_gramian or balancer.separate_encoder_weights or isinstance(balancer, MetaBalancer)
    )
    reasons = {
        "several devices share each batch, and DDP's hooks cannot be captured": ranks > 1,
        f"balancer {config.balancer.name} takes the gradient of each task by itself": several_passes,
        "optim.accumulate adds gradients up in memory that a graph writes over": config.optim.accumulate > 1,
        "activation_checkpointing keeps random states on the host": config.activation_checkpointing,
        "compile is set": config.compile is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class _Part(nn.Module):
    """A part of the step with just the parameters that it uses, which is what a graph is made of."""

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.run = run
        self.used = nn.ParameterList(parameters)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.run(*inputs)


class GraphedStep:
    """Encoding, decoding and objective as CUDA graphs, by the shape of the batch.

    Args:
        network: trains on a GPU already; its parameters keep their memory from now on.
        objective: the criterion.
        autocast: the precision of the network; must not cache casts.
    """

    def __init__(self, network: Network, objective: Objective, autocast: Autocast) -> None:
        self._network, self._objective, self._autocast = network, objective, autocast
        self._graphs: dict[torch.Size, tuple[tuple[str, ...], nn.Module, nn.Module]] = {}

    def capture(self, batch: Batch) -> None:
        """Capture the graphs for batches of the shapes and types of ``batch``, whose values do not matter.

        Weights, running statistics and random state stay as they are. No other thread may use the GPU.

        Raises:
            RuntimeError: something in the step cannot be captured.
        """
        names = tuple(name for name, value in batch.items() if isinstance(value, Tensor) and name != "image")
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        labels = [batch[name].clone() for name in names]

        def encode(images: Tensor) -> tuple[Tensor, ...]:
            with self._autocast():
                return (self._network.encode(images),)

        def criterion(shared: Tensor, *labels: Tensor) -> tuple[Tensor, ...]:
            with self._autocast():
                predictions = self._network.decode(shared)
            terms = self._objective(predictions, dict(zip(names, labels, strict=True)))
            return (*terms.losses, *terms.aux_losses, terms.coherence_loss, terms.supervised)

        # torch keeps the captured autograd graph, made on a stream of its own, alive on purpose
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        plain = torch.autocast(images.device.type, enabled=False)
        with unchanged(self._network), _finished(), plain:
            trained = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
            found = torch.autograd.grad(encode(images[:2])[0].float().sum(), trained, allow_unused=True)
            first = [p for p, gradient in zip(trained, found, strict=True) if gradient is not None]
            second = [p for p, gradient in zip(trained, found, strict=True) if gradient is None]
            del found
            with torch.no_grad():
                leaf = encode(images)[0].clone()
            leaf.requires_grad_()
            parts = (_Part(encode, first), _Part(criterion, second))
            torch.cuda.make_graphed_callables(
                parts, ((images.clone(),), (leaf, *labels)), allow_unused_input=True
            )
        self._graphs[batch["image"].shape] = (names, *parts)  # their forward replays now

    def run(self, batch: Batch) -> tuple[Tensor, TaskLosses] | None:
        """The shared representation and the losses of a batch; None: there is no graph for its shape."""
        if batch["image"].shape not in self._graphs:
            return None
        names, encode, criterion = self._graphs[batch["image"].shape]
        (shared,) = encode(batch["image"])
        *scalars, supervised = criterion(shared, *(batch[name] for name in names))
        tasks = len(self._network.tasks)
        return shared, TaskLosses(scalars[:tasks], scalars[tasks : 2 * tasks], scalars[-1], supervised)


@contextmanager
def _finished() -> Iterator[None]:
    """Wait at the end for what the GPU has been told."""
    try:
        yield
    finally:
        torch.cuda.synchronize()


def capture_all(step: GraphedStep, batches: Mapping[tuple[int, int], Batch]) -> bool:
    """Capture for every size; False, with a warning, if the step cannot be captured."""
    for (height, width), batch in batches.items():
        try:
            step.capture(batch)
        except (RuntimeError, AssertionError) as error:
            log.warning("cuda_graphs: the step cannot be captured and runs the plain way: %s", error)
            return False
        log.info("captured the step at %d x %d as CUDA graphs", height, width)
    return True
