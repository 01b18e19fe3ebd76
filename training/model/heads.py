"""Prediction heads: conv1x1 - BN - ReLU - conv1x1, one shape a task kind, all tasks in one computation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.config import ModelConfig
from training.model.exporting import exporting
from training.model.stacked import pointwise
from training.tasks import Task

TYPICAL_DEPTH = 2.5
"""Metres a fresh depth head starts at, so that early steps are not spent on the mean of the data."""


class Heads(nn.Module):
    """Features [B, T*C, h, w] -> predictions of all tasks, [B, sum of channels, h, w], in task order.

    Depth heads are half as wide and emit metres: beside wider ones, the other half of their hidden channels
    has factors of zero and stays so, for neither gradient nor decay reaches it. The last layers are rows of
    one weight, each row for an output channel and over the hidden channels of its own task.
    """

    rows: Tensor

    def __init__(self, channels: int, tasks: Sequence[Task], config: ModelConfig) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        count = len(self.tasks)
        widest = max(self.width(task, channels) for task in self.tasks)
        self.hidden = nn.Sequential(
            pointwise(count, channels, widest, bias=False),
            nn.BatchNorm2d(count * widest),
            nn.ReLU(inplace=True),
        )
        self.outputs = [task.channels for task in self.tasks]
        self.weight = nn.Parameter(torch.empty(sum(self.outputs), widest))
        self.bias = nn.Parameter(torch.empty(sum(self.outputs)))
        rows = [[[float(mine == other)] for other in tasks] for mine in tasks for _ in range(mine.channels)]
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self._softplus = config.depth_activation == "softplus"
        self._facing = config.normals_facing
        self._initialise(channels)

    @torch.no_grad()
    def _initialise(self, channels: int) -> None:
        convolution, norm = self.hidden[0], self.hidden[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        for index, (task, weight, bias) in enumerate(zip(self.tasks, *self.layers(), strict=True)):
            width = self.width(task, channels)
            nn.init.uniform_(weight[:, :width], -(width**-0.5), width**-0.5)
            nn.init.uniform_(bias, -(width**-0.5), width**-0.5)
            idle = slice(index * weight.shape[1] + width, (index + 1) * weight.shape[1])
            for tensor in (convolution.weight, norm.weight, norm.bias):
                tensor[idle] = 0
            weight[:, width:] = 0
            if task.kind == "depth":
                bias.fill_(TYPICAL_DEPTH)

    @staticmethod
    def width(task: Task, channels: int) -> int:
        """Hidden channels of the head of ``task``."""
        return channels // 2 if task.kind == "depth" else channels

    def layers(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights [task.channels, C] and biases [task.channels] of the last layers by task: views."""
        return torch.split(self.weight, self.outputs), torch.split(self.bias, self.outputs)

    def _activated(self, maps: Tensor, axis: int) -> Tensor:
        """Maps with channels on ``axis``, with what depth and normals ask for."""
        parts: list[Tensor] = []
        for task, part in zip(self.tasks, torch.split(maps, self.outputs, axis), strict=True):
            if task.kind == "depth" and self._softplus:
                parts.append(functional.softplus(part))
            elif task.kind == "normals" and self._facing:
                parts += [part.narrow(axis, 0, 2), part.narrow(axis, 2, 1).abs()]
            else:
                parts.append(part)
        return torch.cat(parts, axis)

    def forward(self, x: Tensor) -> Tensor:
        """Raw logits, metres and un-normalised normals."""
        weight = (self.weight.unsqueeze(1) * self.rows).view(len(self.bias), -1, 1, 1)
        maps = functional.conv2d(self.hidden(x), weight, self.bias)
        if not (self._softplus or self._facing):
            return maps
        if exporting():
            return self._activated(maps, 1)
        return self._activated(maps.movedim(1, -1), -1).movedim(-1, 1)  # channels last, also in backward

    def by_name(self, maps: Tensor) -> dict[str, Tensor]:
        """Predictions [B, sum of channels, h, w] -> [B, task.channels, h, w] by task name: views."""
        parts = torch.split(maps, self.outputs, 1)
        return {task.name: part for task, part in zip(self.tasks, parts, strict=True)}
