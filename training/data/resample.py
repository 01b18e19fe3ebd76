"""Sampling a map at a new grid of pixels without inventing values where it has none."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Box(NamedTuple):
    """A rectangle of a map in its own pixels, not necessarily whole ones; (0, 0) is the outer corner."""

    top: float
    left: float
    height: float
    width: float


def _centres(start: float, length: float, size: int) -> Tensor:
    """Positions of the centres of ``size`` equal cells of ``[start, start + length]``."""
    return start + (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)


def _nearest_index(start: float, length: float, size: int, extent: int) -> Tensor:
    return _centres(start, length, size).floor().long().clamp_(0, extent - 1)


def nearest(values: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """``values`` [..., h, w] inside ``box``, sampled to ``size`` (H, W) at the nearest pixel."""
    rows = _nearest_index(box.top, box.height, size[0], values.shape[-2])
    columns = _nearest_index(box.left, box.width, size[1], values.shape[-1])
    return values.index_select(-2, rows).index_select(-1, columns)


def _lerp(values: Tensor, dim: int, start: float, length: float, size: int) -> Tensor:
    extent = values.shape[dim]
    position = (_centres(start, length, size) - 0.5).clamp_(0, extent - 1)
    low = position.floor().long()
    high = (low + 1).clamp_(max=extent - 1)
    weight = (position - low).to(values.dtype)
    if dim == -2:
        weight = weight[:, None]
    return torch.lerp(values.index_select(dim, low), values.index_select(dim, high), weight)


def bilinear(values: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
    """``values`` [..., h, w] (float) inside ``box``, sampled to ``size`` (H, W) bilinearly."""
    rows = _lerp(values, -2, box.top, box.height, size[0])
    return _lerp(rows, -1, box.left, box.width, size[1])


def masked_bilinear(values: Tensor, valid: Tensor, box: Box, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Bilinear sampling that leaves invalid pixels out of every average.

    Args:
        values: float [C, h, w].
        valid: bool [1, h, w].
        box: region of the map, in its pixels.
        size: (H, W) of the result.

    Returns:
        Values [C, H, W] and their validity [1, H, W]: a pixel is valid where its nearest source pixel is, so
        valid areas neither grow nor shrink. Values at invalid pixels mean nothing.
    """
    if bool(valid.all()):
        return bilinear(values, box, size), valid.new_ones((1, *size))
    weight = bilinear(valid.to(values.dtype), box, size)
    blended = bilinear(values * valid, box, size)
    return blended.div_(weight.clamp_min_(1e-6)), nearest(valid, box, size)


def rotated(values: Tensor, degrees: float, fill: float) -> Tensor:
    """``values`` [..., h, w] turned counter-clockwise about the centre, nearest pixel, ``fill`` outside."""
    height, width = values.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = (torch.arange(height, dtype=torch.float32) - (height - 1) / 2)[:, None]
    column = (cos * x - sin * y + (width - 1) / 2).round_().long()
    row = (sin * x + cos * y + (height - 1) / 2).round_().long()
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    index = row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)
    turned = values.flatten(-2).index_select(-1, index.flatten())
    return turned.view(values.shape).masked_fill_(outside, fill)
