"""From a record at the image's size to one at the network's size, by torchvision v2 transforms.

Training samples show what the server shows the network: an image of any aspect ratio stretched to H x W.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from training.data.color import ColorJitter
from training.data.config import AugmentConfig
from training.data.maps import PixelMap
from training.data.resample import Box, Turn

_BORDER = torch.tensor([124, 116, 104], dtype=torch.uint8)
"""Colour of image borders that come in by rotation: the mean of ImageNet, RGB."""


class RandomView(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """Cuts out a random region, stretches it to ``size`` (H, W) and sometimes rotates it a little.

    The region's sides are a random share of the image's (above 1: with borders that have no label), so that
    its aspect ratio is the image's up to a mild jitter. Metric depth is divided by the zoom against the
    stretched whole image, the geometric mean of the two axes' zooms. Rotation comes last, where there are the
    fewest pixels, by its angle in the image.
    """

    def __init__(self, size: tuple[int, int], augment: AugmentConfig) -> None:
        super().__init__()
        self.size = size
        self.augment = augment

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The region as shares of the image, on whole pixels of the image, and the rotation or None."""
        image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
        height, width = image.shape[-2:]
        region = self._region(height, width)
        rotate, angle = torch.rand(2).tolist()
        turn = None
        if rotate < self.augment.rotate:
            aspect = (region.width * width / self.size[1]) / (region.height * height / self.size[0])
            turn = Turn((2 * angle - 1) * self.augment.degrees, self.size, aspect)
        return {"region": region, "turn": turn}

    def _region(self, height: int, width: int) -> Box:
        whole, scale, aspect, top, left = torch.rand(5).tolist()
        if whole < self.augment.whole:
            return Box(0.0, 0.0, 1.0, 1.0)
        low, high = self.augment.scale
        side = low + scale * (high - low)
        jitter = math.exp((aspect - 0.5) * self.augment.aspect)
        most = max(1.0, side)
        rows = max(1, round(height * min(most, side / jitter)))
        columns = max(1, round(width * min(most, side * jitter)))
        first_row, first_column = round(top * (height - rows)), round(left * (width - columns))
        return Box(first_row / height, first_column / width, rows / height, columns / width)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The view of an image (antialiased) or of a map."""
        height, width = inpt.shape[-2:]
        region: Box = params["region"]
        turn: Turn | None = params["turn"]
        box = Box(region.top * height, region.left * width, region.height * height, region.width * width)
        if isinstance(inpt, PixelMap):
            seen: PixelMap = functional.resized_crop(inpt, *box, size=list(self.size))
            return seen.turned(turn) if turn else seen
        bordered = _with_borders(inpt, box)
        pixels = (max(0, round(box.top)), max(0, round(box.left)), round(box.height), round(box.width))
        image: Tensor = functional.resized_crop(bordered, *pixels, size=list(self.size), antialias=True)
        if turn:
            image = tv_tensors.wrap(turn.colors(image.as_subclass(Tensor), _BORDER), like=inpt)
        return image


def _with_borders(image: Tensor, box: Box) -> Tensor:
    """``image`` [3, h, w] with borders of one colour on the sides where ``box`` reaches beyond it."""
    height, width = image.shape[-2:]
    top, left = max(0, -round(box.top)), max(0, -round(box.left))
    bottom = max(0, round(box.top + box.height) - height)
    right = max(0, round(box.left + box.width) - width)
    if not (top or left or bottom or right):
        return image
    padded: Tensor = functional.pad(image, [left, top, right, bottom], fill=_BORDER.tolist())
    return padded


def training_transform(size: tuple[int, int], augment: AugmentConfig) -> v2.Transform:
    """Random view, flip and colours; draws from torch's global generator."""
    return v2.Compose(
        [RandomView(size, augment), v2.RandomHorizontalFlip(augment.flip), ColorJitter(augment)]
    )


def plain_transform(size: tuple[int, int]) -> v2.Transform:
    """The stretch alone, as the server does it."""
    return v2.Resize(list(size), antialias=True)
