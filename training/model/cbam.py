"""Convolutional block attention (Woo et al. 2018), used by CFM and SRM."""

import torch
from torch import Tensor, nn


class CBAM(nn.Module):
    """Channel gate (shared MLP on average and maximum, reduction 16), then spatial gate (7x7 conv + BN).

    Shape and channel count are kept.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        highest = x.flatten(2).max(-1).values  # max by index: its gradient is one scatter, unlike amax
        gate = self.channel(x.mean((2, 3))) + self.channel(highest)
        x = x * gate.sigmoid()[:, :, None, None]
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        gated: Tensor = x * self.spatial(pooled).sigmoid()
        return gated
