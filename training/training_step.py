"""One forward pass from images to the scalar that is trained on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.balancing import Engine
from training.data import Batch
from training.model import Network
from training.objective import Objective


class Outcome(NamedTuple):
    """A step's result, the same on every rank but for ``total``.

    ``total`` is the scalar for the one backward pass. ``losses`` [T] are the raw final losses, ``heads`` and
    ``encoder`` [T] the task weights, ``supervised`` [T] whether any image had a label.
    """

    total: Tensor
    losses: Tensor
    heads: Tensor
    encoder: Tensor
    supervised: Tensor
    finite: bool


class Step(nn.Module):
    """Network, objective and balancing behind one ``forward``, so that wrappers like DDP see all of it.

    The engine is no submodule: its parameters have equal gradients on all ranks and need no DDP.
    """

    def __init__(self, network: Network, objective: Objective, engine: Engine) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._engine = (engine,)
        self._encode: Callable[[Tensor], Tensor] = network.encode
        self._decode = network.decode

    def compile_with(self, backend: str) -> None:
        """Compile encoding and decoding; balancing, which works between them, stays as it is."""
        self._encode = torch.compile(self.network.encode, backend=backend)
        self._decode = torch.compile(self.network.decode, backend=backend)

    def forward(self, batch: Batch, epoch: int, step: int, scale: float) -> Outcome:
        """The outcome of a batch; ``scale`` is the loss scale of fp16."""
        engine = self._engine[0]
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        shared = self._encode(images)
        leaf = engine.leaf(shared)
        predictions = self._decode(leaf)
        with torch.autocast(images.device.type, enabled=False):
            terms = self.objective(predictions, batch)
            balanced = engine.total(
                terms.losses,
                terms.folded,
                terms.unweighted,
                shared,
                leaf,
                epoch=epoch,
                step=step,
                scale=scale,
            )
        weights = balanced.weights
        encoder = weights.heads if weights.encoder is None else weights.encoder
        return Outcome(
            balanced.total,
            balanced.losses,
            weights.heads,
            encoder,
            terms.supervised,
            balanced.finite,
        )


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
