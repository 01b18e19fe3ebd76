"""Convolutional block attention (Woo et al. 2018), used by CFM and SRM."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from training.model.exporting import exporting
from training.model.sized import Sized
from training.model.stacked import by_task, pointwise

REDUCTION = 16
"""Of the channels in the channel gate, as its authors have it."""
MOMENTUM = 0.01
"""Of the batch norm in the spatial gate, as its authors have it."""
LANES = 16
"""Of the widest vectors of CPUs: ONNX Runtime has fast depthwise convolutions of multiples of it."""


class Pairs(Sized):
    """By T and channels: which of the channels belong to each task, two and two; [T, channels, 1, 1]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        tasks, channels = size
        owners = torch.arange(channels, device=device) // 2
        return (owners == torch.arange(tasks, device=device)[:, None]).double()[..., None, None]


class _MeanAndMax(torch.autograd.Function):
    """Of ``x`` along an axis, which is kept: ``x`` itself, its mean and its maximum.

    Who reads ``x`` on reads it from here, so that one tensor, in the order of ``x`` in memory, takes the
    gradients of all three; each by itself would fill a map with zeros to add it to the others.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        highest, place = x.max(axis, keepdim=True)
        ctx.save_for_backward(place)
        ctx.axis = axis
        return x.view_as(x), x.mean(axis, keepdim=True), highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (place,) = ctx.saved_tensors
        of_x, of_mean, of_highest = upstream
        gradient = torch.add(of_x, of_mean, alpha=1 / of_x.shape[ctx.axis])
        there = gradient.gather(ctx.axis, place) + of_highest
        return gradient.scatter_(ctx.axis, place, there), None


class CBAM(nn.Module):
    """Channel gate (shared MLP on average and maximum), then spatial gate (7x7 conv + BN).

    One of each per task; shape and channel count are kept.
    """

    def __init__(self, tasks: int, channels: int) -> None:
        super().__init__()
        self.tasks = tasks
        hidden = max(channels // REDUCTION, 4)
        self.channel = nn.Sequential(
            pointwise(tasks, channels, hidden), nn.ReLU(inplace=True), pointwise(tasks, hidden, channels)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(2 * tasks, tasks, 7, padding=3, groups=tasks, bias=False),
            nn.BatchNorm2d(tasks, momentum=MOMENTUM),
        )
        self.pairs = Pairs()

    def _spatial(self, pooled: Tensor) -> Tensor:
        """``self.spatial`` for an exported graph: [B, 2T, H, W], maximum and mean -> [B, T, H, W].

        Every channel has a convolution of its own and a second one adds up pairs: a third of the time of
        convolutions of two channels, which ONNX Runtime unrolls into matrices.
        """
        convolution, norm = self.spatial[0], self.spatial[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        channels = -(-pooled.shape[1] // LANES) * LANES
        more = (0, 0, 0, 0, 0, channels - pooled.shape[1])
        weight = functional.pad(convolution.weight.flatten(0, 1).unsqueeze(1), (0, 0, *more))
        alone = functional.conv2d(functional.pad(pooled, more), weight, padding=3, groups=channels)
        sums = functional.conv2d(alone, self.pairs(self.tasks, channels, like=alone))
        normed: Tensor = norm(sums)
        return normed

    def _exported(self, x: Tensor) -> Tensor:
        """As :meth:`forward`, in plain operators on maps."""
        flat = x.flatten(2)
        pooled = torch.cat([flat.mean(-1, keepdim=True), flat.max(-1, keepdim=True).values], -1)[..., None]
        gate = self.channel(pooled).sum(2, keepdim=True).sigmoid()
        tasks = by_task(x * gate, self.tasks)
        highest, mean = tasks.max(2, keepdim=True).values, tasks.mean(2, keepdim=True)
        pooled = torch.cat([highest, mean], 2).flatten(1, 2)
        gated: Tensor = tasks * self._spatial(pooled).sigmoid().unsqueeze(2)
        return gated.flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T*C, H, W] -> [B, T*C, H, W]; computed channels last."""
        if exporting():
            return self._exported(x)
        batch, _, height, width = x.shape
        pixels = x.flatten(2).transpose(1, 2)
        pixels, mean, highest = _MeanAndMax.apply(pixels, 1)
        pooled = torch.cat([mean, highest], 1).transpose(1, 2).unsqueeze(-1)
        gate = self.channel(pooled).sum(2).sigmoid()
        tasks = (pixels * gate.transpose(1, 2)).view(batch, height, width, self.tasks, -1)
        tasks, mean, highest = _MeanAndMax.apply(tasks, -1)
        pooled = torch.cat([highest, mean], -1).flatten(-2).movedim(-1, 1)
        gated: Tensor = tasks * self.spatial(pooled).sigmoid().movedim(1, -1).unsqueeze(-1)
        return gated.flatten(-2).movedim(-1, 1)
