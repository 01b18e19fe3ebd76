"""Where a position of a pyramid lies: sine embeddings and sampling grids, constants of its sizes.

A pyramid's positions stand one after another, level by level, row by row: L of them in all.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from training.model.sized import Sized

Size = tuple[int, int]
TEMPERATURE = 10_000
"""The longest wavelength of the sine embeddings over the shortest, as in Mask2Former."""


def areas(sizes: list[Size]) -> list[int]:
    """Positions of each level."""
    return [height * width for height, width in sizes]


def flat(sizes: list[Size]) -> list[int]:
    """Sizes as the arguments of a :class:`Sized`."""
    return [side for size in sizes for side in size]


def _sizes(sides: tuple[int, ...]) -> list[Size]:
    return [pair for index, pair in enumerate(pairwise(sides)) if index % 2 == 0]


class SineEmbedding(Sized):
    """By the heights and widths of all levels: Mask2Former's position embedding, [L, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = channels // 2

    def _along(self, side: int, device: torch.device) -> Tensor:
        """[side, channels / 2]: sines and cosines in turn of the place in 0..2 pi."""
        places = torch.arange(1, side + 1, device=device, dtype=torch.float64) / (side + 1e-6) * 2 * math.pi
        index = torch.arange(self.features, device=device, dtype=torch.float64)
        angles = places[:, None] / TEMPERATURE ** (2 * (index / 2).floor() / self.features)
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], -1).flatten(1)

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        levels = []
        for height, width in _sizes(size):
            down = self._along(height, device)[:, None].expand(-1, width, -1)
            right = self._along(width, device)[None].expand(height, -1, -1)
            levels.append(torch.cat([down, right], -1).flatten(0, 1))
        return torch.cat(levels)


class LevelIndex(Sized):
    """By the heights and widths of all levels: the level of each position, [L]."""

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        levels = [torch.full((area,), index, device=device) for index, area in enumerate(areas(_sizes(size)))]
        return torch.cat(levels)


class Centres(Sized):
    """By samples, and the heights and widths of all levels: [L, 2 * samples].

    The centre of each position, x before y in -1..1, once for each sample that starts from there.
    """

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        samples, *sides = size
        levels = []
        for height, width in _sizes(tuple(sides)):
            y, x = (
                (2 * torch.arange(side, device=device, dtype=torch.float64) + 1) / side - 1
                for side in (height, width)
            )
            levels.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1))
        return torch.cat(levels).repeat(1, samples)


class PixelSteps(Sized):
    """By heads, points, and the heights and widths of all levels: [heads * levels * points * 2].

    A pixel's width and height where an image's side is 2, for each sample of a position in its level.
    """

    def make(self, *size: int, device: torch.device) -> Tensor:
        """See the class."""
        heads, points, *sides = size
        lengths = torch.cat([torch.full((1,), side, device=device, dtype=torch.float64) for side in sides])
        steps = (2 / lengths).view(-1, 1, 2).flip(-1).repeat(1, points, 1)
        return steps.flatten().repeat(heads)
