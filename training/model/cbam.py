"""Convolutional block attention (Woo et al. 2018), used by CFM and SRM."""

import torch
from torch import Tensor, nn

from training.model.stacked import by_task, pointwise

MOMENTUM = 0.01
"""Of the batch norm in the spatial gate, as its authors have it."""


class CBAM(nn.Module):
    """Channel gate (shared MLP on average and maximum, reduction 16), then spatial gate (7x7 conv + BN).

    One of each per task; shape and channel count are kept.
    """

    def __init__(self, tasks: int, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.tasks = tasks
        hidden = max(channels // reduction, 4)
        self.channel = nn.Sequential(
            pointwise(tasks, channels, hidden), nn.ReLU(inplace=True), pointwise(tasks, hidden, channels)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(2 * tasks, tasks, 7, padding=3, groups=tasks, bias=False),
            nn.BatchNorm2d(tasks, momentum=MOMENTUM),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T*C, H, W] -> [B, T*C, H, W]."""
        flat = x.flatten(2)
        highest = flat.max(-1, keepdim=True).values  # max by index: its gradient is one scatter, unlike amax
        pooled = torch.cat([flat.mean(-1, keepdim=True), highest], -1)[..., None]
        gate = self.channel(pooled).sum(2, keepdim=True).sigmoid()
        tasks = by_task(x * gate, self.tasks)
        highest, mean = tasks.max(2, keepdim=True).values, tasks.mean(2, keepdim=True)
        pooled = torch.cat([highest, mean], 2).flatten(1, 2)
        gated: Tensor = tasks * self.spatial(pooled).sigmoid().unsqueeze(2)
        return gated.flatten(1, 2)
