"""Constants that follow from a map's size alone, made once a size and kept on the network's device."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Sized(nn.Module, ABC):
    """A family of constant tensors, one a size.

    The first call with a size makes its constant on the device that is asked for, and keeps it. It is
    neither parameter nor buffer: no checkpoint holds it and no average of weights runs over it. Nothing is
    ever dropped: a captured CUDA graph reads the memory of its constants again and again. While PyTorch
    compiles or exports, unknown sizes are computed in the graph and not kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[object, ...], Tensor] = {}

    @abstractmethod
    def make(self, *size: int, device: torch.device) -> Tensor:
        """The constant of ``size``, on ``device``: integers, or floats in double precision."""

    def forward(self, *size: int, like: Tensor) -> Tensor:
        """The constant of ``size`` on the device of ``like``, floats in its precision."""
        key = (*size, like.device, like.dtype)
        known = self._made.get(key)
        if known is not None:
            return known
        with torch.inference_mode(False), torch.no_grad():
            made = self.make(*size, device=like.device)
            made = made.to(like.dtype) if made.is_floating_point() else made
        if not torch.compiler.is_compiling():
            self._made[key] = made
        return made
