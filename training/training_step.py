"""One forward pass from images to the scalar that is trained on."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from training.balancing import Engine, StepResult
from training.balancing.meta import MetaBalancer
from training.data import Batch
from training.graphs import GraphedStep
from training.model import Network, Predictions
from training.objective import Objective

log = logging.getLogger(__name__)

T = TypeVar("T")


class Held:
    """A batch past Fabric, which would round all floats in a dict to the network's precision, labels too."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Step(nn.Module):
    """Network, objective and balancing behind one ``forward``, so that wrappers like DDP see all of it.

    The engine is not a submodule: its parameters have equal gradients on all ranks and need no DDP.
    """

    def __init__(self, network: Network, objective: Objective, engine: Engine) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._engine = (engine,)
        self._encode: Callable[[Tensor], Tensor] = network.encode
        self._decode: Callable[[Tensor], Predictions] = network.decode
        self.graphs: GraphedStep | None = None

    def compile_with(self, backend: str) -> None:
        """Compile encoding and decoding; balancing, which works between them, stays as it is.

        What the backend cannot compile runs as it is, with a warning.
        """
        network = self.network
        # dynamic=False: a graph per training size; sizes as symbols take minutes to reason about
        self._encode = _or_plain(
            torch.compile(network.encode, backend=backend, dynamic=False), network.encode
        )
        self._decode = _or_plain(
            torch.compile(network.decode, backend=backend, dynamic=False), network.decode
        )

    def forward(self, held: Held, epoch: int, step: int, scale: float) -> StepResult:
        """The result of a batch; ``scale`` is the loss scale of fp16."""
        engine, batch = self._engine[0], held.batch
        graphed = None if self.graphs is None else self.graphs.run(batch)
        if graphed is not None:
            shared, terms = graphed
            return engine.total(terms, shared, shared, epoch=epoch, step=step, scale=scale)
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        shared = self._encode(images)
        leaf = engine.leaf(shared)
        predictions = self._decode(leaf)
        with torch.autocast(images.device.type, enabled=False):
            terms = self.objective(predictions, batch)
            return engine.total(terms, shared, leaf, epoch=epoch, step=step, scale=scale)


def _or_plain(compiled: Callable[[Tensor], T], plain: Callable[[Tensor], T]) -> Callable[[Tensor], T]:
    """``compiled`` until it fails to compile, then ``plain``."""
    run = compiled

    def guarded(inputs: Tensor) -> T:
        nonlocal run
        try:
            return run(inputs)
        except TorchDynamoException as error:
            log.warning("compile: the network runs as it is, for it cannot be compiled here: %s", error)
            run = plain
            return run(inputs)

    return guarded


def checkpoint_activations(network: Network) -> None:
    """Recompute encoder blocks and decoder stages in the backward pass: their activations are not kept."""
    encoder: Any = network.image_encoder
    if hasattr(encoder, "set_grad_checkpointing"):
        encoder.set_grad_checkpointing()
    else:
        encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for part in network.recomputable():
        part.forward = _recomputed(part.forward)


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def wrapped(*inputs: Tensor) -> Tensor:
        result: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
        return result

    return wrapped


def take_meta_step(
    balancer: MetaBalancer,
    network: Network,
    objective: Objective,
    batches: tuple[Batch, Batch],
    optimizer: Optimizer,
    mean: Callable[[Tensor], Tensor],
) -> None:
    """Let ``balancer`` look ahead: a step on the first of ``batches``, judged on the second.

    ``mean`` is over the ranks.
    """

    def plain_losses(batch: Batch) -> tuple[Tensor, Tensor]:
        """Final losses [T] and the sum of all unweighted terms, in fp32 and past all wrappers."""
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        terms = objective(network(images), batch)
        return torch.stack(list(terms.losses)), torch.stack([*terms.aux_losses, terms.coherence_loss]).sum()

    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    train, second = (partial(plain_losses, batch) for batch in batches)
    balancer.meta_step(network, train, second, rates, mean)
