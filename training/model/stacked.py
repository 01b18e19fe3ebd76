"""Layers of all tasks at once: the same mathematics as one layer a task, in one operator.

Tokens carry the task axis in front, [T, B, h, w, C]; maps carry it in the channels, [B, T*C, h, w], where
convolutions with a group a task and ordinary batch norms do the rest. Biases and the factors of norms are
vectors over all tasks, so that the optimizer tells them from weights as it does everywhere else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TaskLinear(nn.Module):
    """A linear layer for each of T tasks: [T, ..., in] -> [T, ..., out]; initialised as `torch.nn.Linear`."""

    def __init__(self, tasks: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(tasks, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tasks * outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[T, ..., in] -> [T, ..., out]."""
        rows = x.flatten(1, -2)
        if self.bias is None:
            result = torch.bmm(rows, self.weight)
        else:
            result = torch.baddbmm(self.bias.view(self.weight.shape[0], 1, -1), rows, self.weight)
        return result.view(*x.shape[:-1], -1)


class TaskLayerNorm(nn.Module):
    """Layer norm over the channels of tokens [T or 1, B, h, w, C], with scale and shift of each task."""

    def __init__(self, tasks: int, channels: int) -> None:
        super().__init__()
        self.shape = (tasks, 1, 1, 1, channels)
        self.weight = nn.Parameter(torch.ones(tasks * channels))
        self.bias = nn.Parameter(torch.zeros(tasks * channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """[T or 1, B, h, w, C] -> [T, B, h, w, C]."""
        plain = functional.layer_norm(tokens, self.shape[-1:])
        return torch.addcmul(self.bias.view(self.shape), plain, self.weight.view(self.shape))


def to_maps(tokens: Tensor) -> Tensor:
    """Tokens [T, B, h, w, C] -> maps [B, T*C, h, w].

    In an exported graph in two steps: ONNX Runtime moves one axis twelve times as fast as two.
    """
    if torch.compiler.is_exporting():
        tasks, batch, height, width, channels = tokens.shape
        maps = tokens.movedim(-1, 2).reshape(tasks, batch, channels * height * width).transpose(0, 1)
        return maps.reshape(batch, tasks * channels, height, width)
    return tokens.permute(1, 0, 4, 2, 3).flatten(1, 2)


def by_task(maps: Tensor, tasks: int) -> Tensor:
    """Maps [B, T*C, h, w] -> [B, T, C, h, w], a view."""
    batch, channels, height, width = maps.shape
    return maps.view(batch, tasks, channels // tasks, height, width)


def pointwise(tasks: int, inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution for each task: [B, T*inputs, h, w] -> [B, T*outputs, h, w]."""
    return nn.Conv2d(tasks * inputs, tasks * outputs, 1, groups=tasks, bias=bias)
