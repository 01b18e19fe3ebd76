"""What is tried on a network without a trace."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def unchanged(network: nn.Module) -> Iterator[Callable[[], None]]:
    """Put parameters, buffers and the random state (of the CPU and of the network's GPUs) back at the end.

    Their memory stays where it is. Yields what puts back the random state alone.
    """
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
