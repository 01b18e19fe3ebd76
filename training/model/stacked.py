"""Layers of all tasks at once: the same mathematics as one layer a task, in one operator.

Tokens carry the task axis in front, [T, B, h, w, C]; maps carry it in the channels, [B, T*C, h, w], where
convolutions with a group a task and ordinary batch norms do the rest. Biases and the factors of norms are
vectors over all tasks, so that the optimizer tells them from weights as it does everywhere else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.exporting import exporting


class TaskLinear(nn.Module):
    """A linear layer for each of T tasks, initialised as `torch.nn.Linear`."""

    def __init__(self, tasks: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(tasks, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tasks * outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, h, w, in] -> [T, B, h, w, out]."""
        rows, tasks = x.flatten(1, -2), len(self.weight)
        if self.bias is None:
            return torch.bmm(rows, self.weight).view(*x.shape[:-1], -1)
        if exporting():
            product = torch.bmm(rows, self.weight).view(*x.shape[:-1], -1)
            return product + per_task(self.bias, tasks, x.shape[-2])
        return torch.baddbmm(self.bias.view(tasks, 1, -1), rows, self.weight).view(*x.shape[:-1], -1)


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

    def maps(self, tokens: Tensor) -> Tensor:
        """[T, B, h, w, C] -> maps [B, T*C, h, w]: scaled and shifted there, where a channel is one run."""
        plain = to_maps(functional.layer_norm(tokens, self.shape[-1:]))
        return torch.addcmul(self.bias.view(-1, 1, 1), plain, self.weight.view(-1, 1, 1))

    def raised(self, tokens: Tensor) -> Tensor:
        """Tokens normalised without scale and shift, plus one in each channel; see :meth:`weight_after`."""
        one = self.weight.new_ones(self.shape[-1:])
        return functional.layer_norm(tokens, self.shape[-1:], one, one)

    def weight_after(self, linear: TaskLinear) -> Tensor:
        """W [T, in, out] for which ``raised(tokens) @ W`` is ``linear(self(tokens))``.

        The channels of a normalised token add up to zero; raised by one, to C. What is constant, the shift
        and the bias, is then linear in the token, and costs neither a product nor a sum of its own.
        """
        tasks, inputs, _ = linear.weight.shape
        scaled = linear.weight * self.weight.view(tasks, inputs, 1)
        constant = (linear.weight * self.bias.view(tasks, inputs, 1)).sum(1, keepdim=True)
        if linear.bias is not None:
            constant = constant + linear.bias.view(tasks, 1, -1)
        return scaled + (constant - scaled.sum(1, keepdim=True)) / inputs


def after_norm(norm: TaskLayerNorm, linear: TaskLinear, tokens: Tensor) -> Tensor:
    """``linear(norm(tokens))`` of [T or 1, B, h, w, C]; in an exported graph a plain norm and a product."""
    if exporting():
        rows = norm.raised(tokens).flatten(1, -2)
        return (rows @ norm.weight_after(linear)).view(-1, *tokens.shape[1:-1], linear.weight.shape[-1])
    projected: Tensor = linear(norm(tokens))
    return projected


def per_task(vector: Tensor, tasks: int, width: int) -> Tensor:
    """A vector over all tasks, [T*C], as a summand of tokens [T, B, h, w, C] with ``w`` = ``width``.

    [T, 1, 1, 1, C]; in an exported graph [T, 1, 1, w, C], for ONNX Runtime adds long rows at once and a
    few channels slowly.
    """
    placed = vector.view(tasks, 1, 1, 1, -1)
    return placed.expand(-1, -1, -1, width, -1) if exporting() else placed


def to_maps(tokens: Tensor) -> Tensor:
    """Tokens [T, B, h, w, C] -> maps [B, T*C, h, w].

    In an exported graph in two steps: ONNX Runtime moves one axis twelve times as fast as two.
    """
    if exporting():
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
