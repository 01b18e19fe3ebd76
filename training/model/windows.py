"""Attention in shifted windows (Liu et al. 2021) for all tasks at once."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.exporting import exporting
from training.model.sized import Sized
from training.model.stacked import TaskLayerNorm, TaskLinear, after_norm, per_task

APART = -100.0
"""Added to the logits of two positions of a window that the shift brought together, as in Swin."""


class RelativePositions(Sized):
    """By window size: for each pair of a window's positions the row of the bias table, [N*N], N = w*w."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        (window,) = size
        along = torch.arange(window, device=device)
        rows, columns = (axis.flatten() for axis in torch.meshgrid(along, along, indexing="ij"))
        down = rows[:, None] - rows[None] + window - 1
        right = columns[:, None] - columns[None] + window - 1
        return (down * (2 * window - 1) + right).flatten()


class ShiftMask(Sized):
    """By padded height, padded width, window and shift: `APART` where a pair lies across a border, else 0.

    [windows, 1, N, N]; rolling by the shift puts the first rows and columns beside the last ones.
    """

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        height, width, window, shift = size
        down, right = (
            (torch.arange(side, device=device) >= side - shift).long()
            + (torch.arange(side, device=device) >= side - window)
            for side in (height, width)
        )
        regions = (3 * down[:, None] + right[None]).view(height // window, window, width // window, window)
        regions = regions.transpose(1, 2).reshape(-1, window * window)
        apart = regions[:, :, None] != regions[:, None]
        return APART * apart[:, None].double()


class WindowOrder(Sized):
    """By padded height, padded width, window and shift: positions window by window after the shift, [L]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        height, width, window, shift = size
        places = (
            torch.arange(height * width, device=device).view(height, width).roll((-shift, -shift), (0, 1))
        )
        return places.view(height // window, window, width // window, window).transpose(1, 2).flatten()


class MapOrder(WindowOrder):
    """By padded height and width, window, shift, height, width: where in `WindowOrder` a position is."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        *padded, height, width = size
        places = super().make(*padded, device=device).argsort().view(padded[0], padded[1])
        return places[:height, :width].flatten()


class WindowAttention(nn.Module):
    """Self-attention within windows of w x w positions and a learned bias for each relative position.

    Pads to window multiples **first, then rolls**, with the mask of the padded size: where a side is no
    multiple of the window, opposite borders of the image must not attend to each other.

    Args:
        tasks: T.
        channels: C.
        heads: of each task.
        window: w, positions a side.
        shift: positions that the windows are moved down and right; 0 for none.
    """

    def __init__(self, tasks: int, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.tasks, self.heads, self.window, self.shift = tasks, heads, window, shift
        self.scale = (channels // heads) ** -0.5
        self.qkv = TaskLinear(tasks, channels, 3 * channels)
        self.proj = TaskLinear(tasks, channels, channels)
        self.positions = nn.Parameter(torch.empty(tasks * heads, (2 * window - 1) ** 2))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.pairs = RelativePositions()
        self.apart = ShiftMask()
        self.in_windows = WindowOrder()
        self.in_maps = MapOrder()

    def _bias(self, height: int, width: int) -> Tensor:
        """[1 or windows, T*heads, N, N]: learned by relative position, and the mask of shifted windows."""
        area = self.window**2
        learned = self.positions.index_select(1, self.pairs(self.window, like=self.positions))
        learned = learned.view(1, -1, area, area)
        if self.shift:
            learned = learned + self.apart(height, width, self.window, self.shift, like=self.positions)
        return learned

    def _exported(self, tokens: Tensor, norm: TaskLayerNorm) -> Tensor:
        """As :meth:`forward`, for a graph: no axis of heads or windows is moved.

        A Gather puts whole tokens in the order of windows and back, the heads come out of products with their
        own columns of the weights, and go into products with their own rows.
        """
        _, batch, height, width, channels = tokens.shape
        padded = (height + -height % self.window, width + -width % self.window)
        plain = padded == (height, width)
        if plain:
            rows, weight = norm.raised(tokens), norm.weight_after(self.qkv)
        else:
            rows = functional.pad(norm(tokens), (0, 0, 0, padded[1] - width, 0, padded[0] - height))
            weight = self.qkv.weight
        place = (*padded, self.window, self.shift)
        rows = rows.flatten(2, 3).index_select(2, self.in_windows(*place, like=tokens))
        rows = rows.reshape(-1, 1, batch * padded[0] * padded[1], channels)
        split = weight.view(self.tasks, channels, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        parts = [rows @ columns for columns in split.unbind(0)]
        if not plain:
            assert self.qkv.bias is not None
            biases = self.qkv.bias.view(self.tasks, 3, self.heads, 1, -1)
            parts = [part + bias for part, bias in zip(parts, biases.unbind(1), strict=True)]
        area = self.window**2
        q, k, v = (part.view(self.tasks, self.heads, batch, -1, area, part.shape[-1]) for part in parts)
        bias = self._bias(*padded).view(-1, self.tasks, self.heads, area, area).permute(1, 2, 0, 3, 4)
        logits = torch.add(bias.unsqueeze(2), q @ k.transpose(-1, -2), alpha=self.scale)
        attended = (logits.softmax(-1) @ v).view(self.tasks, self.heads, -1, q.shape[-1])
        projected = (attended @ self.proj.weight.view(self.tasks, self.heads, -1, channels)).sum(1)
        back = self.in_maps(*place, height, width, like=tokens)
        projected = projected.view(self.tasks, batch, -1, channels).index_select(2, back)
        assert self.proj.bias is not None
        return projected.view(self.tasks, batch, height, width, channels) + per_task(
            self.proj.bias, self.tasks, width
        )

    def forward(self, tokens: Tensor, norm: TaskLayerNorm) -> Tensor:
        """Tokens [T or 1, B, h, w, C], normalised by ``norm`` -> [T, B, h, w, C]."""
        if exporting():
            return self._exported(tokens, norm)
        tokens = norm(tokens)
        tasks, batch, height, width, channels = tokens.shape
        window, shift = self.window, self.shift
        below, beside = -height % window, -width % window
        if below or beside:
            tokens = functional.pad(tokens, (0, 0, 0, beside, 0, below))
        if shift:
            tokens = tokens.roll((-shift, -shift), (2, 3))
        rows, columns = (height + below) // window, (width + beside) // window
        # images and their rows of windows as one axis: TensorRT takes eight at most
        parts = self.qkv(tokens).view(tasks, batch * rows, window, columns, window, 3, self.heads, -1)
        parts = parts.permute(5, 1, 3, 0, 6, 2, 4, 7)
        q, k, v = parts.reshape(3, batch, rows * columns, tasks * self.heads, window**2, -1).unbind(0)
        logits = torch.add(
            self._bias(height + below, width + beside), q @ k.transpose(-1, -2), alpha=self.scale
        )
        attended = logits.softmax(-1) @ v
        attended = attended.view(batch, rows, columns, tasks, self.heads, window, window, -1)
        tokens = attended.permute(3, 0, 1, 5, 2, 6, 4, 7).reshape(
            tasks, batch, height + below, width + beside, channels
        )
        if shift:
            tokens = tokens.roll((shift, shift), (2, 3))
        projected: Tensor = self.proj(tokens[:, :, :height, :width])
        return projected


class SwinBlock(nn.Module):
    """Attention in windows, then a perceptron with one hidden layer, each on normalised tokens and added."""

    def __init__(
        self, tasks: int, channels: int, heads: int, window: int, shift: int, mlp_ratio: float
    ) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.norm1 = TaskLayerNorm(tasks, channels)
        self.attn = WindowAttention(tasks, channels, heads, window, shift)
        self.norm2 = TaskLayerNorm(tasks, channels)
        self.fc1 = TaskLinear(tasks, channels, hidden)
        self.fc2 = TaskLinear(tasks, hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[T or 1, B, h, w, C] -> [T, B, h, w, C]."""
        tokens = tokens + self.attn(tokens, self.norm1)
        hidden = functional.gelu(after_norm(self.norm2, self.fc1, tokens))
        projected: Tensor = self.fc2(hidden)
        return tokens + projected


class Neighbours(Sized):
    """By even height and width: positions 2x2 by 2x2, each column of two after the other, [L]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        height, width = size
        places = torch.arange(height * width, device=device).view(height // 2, 2, width // 2, 2)
        return places.permute(0, 2, 3, 1).flatten()


class PatchMerging(nn.Module):
    """Concatenates 2x2 neighbours, normalises them and halves their channels; odd sides are padded."""

    def __init__(self, tasks: int, channels: int) -> None:
        super().__init__()
        self.norm = TaskLayerNorm(tasks, 4 * channels)
        self.reduction = TaskLinear(tasks, 4 * channels, 2 * channels, bias=False)
        self.neighbours = Neighbours()

    def forward(self, tokens: Tensor) -> Tensor:
        """[T, B, h, w, C] -> [T, B, ceil(h / 2), ceil(w / 2), 2C]."""
        tasks, batch, height, width, channels = tokens.shape
        if height % 2 or width % 2:
            tokens = functional.pad(tokens, (0, 0, 0, width % 2, 0, height % 2))
        rows, columns = math.ceil(height / 2), math.ceil(width / 2)
        if exporting():
            order = self.neighbours(2 * rows, 2 * columns, like=tokens)
            parts = tokens.flatten(2, 3).index_select(2, order).view(tasks, batch, rows, columns, -1)
            return after_norm(self.norm, self.reduction, parts)
        parts = tokens.view(tasks, batch, rows, 2, columns, 2, channels).permute(0, 1, 2, 4, 5, 3, 6)
        parts = parts.reshape(tasks, batch, rows, columns, 4 * channels)
        return after_norm(self.norm, self.reduction, parts)
