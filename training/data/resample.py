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


def outside(box: Box, size: tuple[int, int], extent: tuple[int, int]) -> Tensor | None:
    """Bool [H, W]: which of the ``size`` (H, W) pixels of ``box`` lie beyond a map of ``extent`` (h, w).

    None where the box lies inside the map.
    """
    beyond = []
    for start, length, cells, end in zip(box[:2], box[2:], size, extent, strict=True):
        centres = _centres(start, length, cells)
        beyond.append((centres < 0) | (centres >= end))
    rows, columns = beyond
    return rows[:, None] | columns if rows.any() or columns.any() else None


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


class Turn:
    """A counter-clockwise in-plane rotation about the centre of maps that all have one size.

    Args:
        degrees: angle in the image, where pixels are square.
        size: (H, W) of the maps.
        pixel_aspect: width of a map's pixel over its height, both measured in the image: the rotation of an
            image that has been stretched is not a rotation of the stretched grid.
    """

    def __init__(self, degrees: float, size: tuple[int, int], pixel_aspect: float) -> None:
        self.cos, self.sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        height, width = size
        x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
        y = (torch.arange(height, dtype=torch.float32) - (height - 1) / 2)[:, None]
        self._column = self.cos * x - self.sin / pixel_aspect * y + (width - 1) / 2
        self._row = self.sin * pixel_aspect * x + self.cos * y + (height - 1) / 2
        column, row = self._column.round().long(), self._row.round().long()
        self._outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
        self._index = (row.clamp_(0, height - 1) * width + column.clamp_(0, width - 1)).flatten()

    def nearest(self, values: Tensor, fill: float) -> Tensor:
        """``values`` [..., H, W] rotated, each pixel from its nearest one, ``fill`` from outside."""
        turned = values.flatten(-2).index_select(-1, self._index).view(values.shape)
        return turned.masked_fill_(self._outside, fill)

    def colors(self, image: Tensor, fill: Tensor) -> Tensor:
        """The uint8 ``image`` [3, H, W] rotated bilinearly, colour ``fill`` [3] from outside."""
        height, width = image.shape[-2:]
        grid = torch.stack((self._column / (width - 1), self._row / (height - 1)), dim=-1) * 2 - 1
        turned = torch.nn.functional.grid_sample(
            image[None].float(), grid[None], padding_mode="border", align_corners=True
        )[0]
        return torch.where(self._outside, fill[:, None, None], turned.round_().to(torch.uint8))
