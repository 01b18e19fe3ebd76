"""`training.bilinear` in a form that exported graphs compute faster."""

import torch
from torch import Tensor
from torch.nn import Module

from training.bilinear import resized
from training.model.exporting import exporting
from training.model.sized import Sized


class Weights(Sized):
    """By the sides before and after: what each old row gives to a new one, [after, before]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        before, after = size
        places = (torch.arange(after, device=device, dtype=torch.float64) + 0.5) * (before / after) - 0.5
        places = places.clamp(0, before - 1)
        distances = (places[:, None] - torch.arange(before, device=device)).abs()
        return (1 - distances).clamp_min(0)


class Resize(Module):
    """Maps [B, C, h, w] to another size, bilinearly.

    In an exported graph two products, where both sides grow: rows of few pixels take ONNX Runtime two to
    eight times as long to interpolate one by one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = Weights()

    def forward(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, C, h, w] -> [B, C, *size]."""
        (height, width), (rows, columns) = maps.shape[-2:], size
        if not exporting() or height >= rows or width >= columns:
            return resized(maps, size)
        beside: Tensor = self.weights(width, columns, like=maps)
        down: Tensor = self.weights(height, rows, like=maps)
        return down @ (maps @ beside.mT)
