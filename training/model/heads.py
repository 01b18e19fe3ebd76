"""Prediction heads: conv1x1 - BN - ReLU - conv1x1, one shape a task kind."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.config import ModelConfig
from training.tasks import Task

TYPICAL_DEPTH = 2.5
"""Metres a fresh depth head starts at, so that early steps are not spent on the mean of the data."""


class Head(nn.Module):
    """Features [B, C, h, w] -> [B, task.channels, h, w]; depth heads are half as wide and emit metres."""

    def __init__(self, channels: int, task: Task, config: ModelConfig) -> None:
        super().__init__()
        hidden = channels // 2 if task.kind == "depth" else channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, task.channels, 1),
        )
        self.softplus = task.kind == "depth" and config.depth_activation == "softplus"
        self.facing = task.kind == "normals" and config.normals_facing
        if task.kind == "depth":
            bias = self.layers[-1].bias
            assert isinstance(bias, nn.Parameter)
            nn.init.constant_(bias, TYPICAL_DEPTH)

    def forward(self, x: Tensor) -> Tensor:
        """Raw logits, metres or un-normalised normals."""
        x = self.layers(x)
        if self.facing:
            return torch.cat([x[:, :2], x[:, 2:].abs()], 1)
        return functional.softplus(x) if self.softplus else x
