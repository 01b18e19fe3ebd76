"""The running average of a network's weights, which is validated and shipped."""

from copy import deepcopy

import torch

from training.model import Network


def warm_decay(decay: float, updates: int) -> float:
    """min(decay, (1 + n) / (10 + n)): after few updates the average forgets the starting weights quickly.

    A constant decay d keeps d^n of them: a fifth after 500 updates at .997.
    """
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage:
    """An exponential average of parameters and floating-point buffers; other buffers are copied.

    Args:
        network: is copied; must be where it trains already.
        decay: of the average, after its warm-up (:func:`warm_decay`).
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.module = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Move towards the weights of ``network``, without a word from the device."""
        self.updates += 1
        mine = [*self.module.parameters(), *self.module.buffers()]
        theirs = [*network.parameters(), *network.buffers()]
        averaged = [(a, b.detach()) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
        copied = [(a, b) for a, b in zip(mine, theirs, strict=True) if not a.is_floating_point()]
        step = 1 - warm_decay(self.decay, self.updates)
        torch._foreach_lerp_([a for a, _ in averaged], [b for _, b in averaged], step)
        if copied:
            torch._foreach_copy_([a for a, _ in copied], [b for _, b in copied])
