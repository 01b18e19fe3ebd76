"""From a record at the photo's size to one at the network's size, by torchvision v2 transforms.

Training samples show what the server shows the network: a photo of any aspect ratio stretched to H x W.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from training.data.colour import ColourJitter
from training.data.config import AugmentConfig
from training.data.resample import Box

_MEAN_COLOUR = [124, 116, 104]
"""Colour of image borders that come in by rotation: the mean of ImageNet, 0..255 RGB."""


class RandomStretchCrop(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """Cuts out a random region and stretches it to ``size`` (H, W).

    The region's sides are a random share of the photo's, so that its aspect ratio is the photo's up to a mild
    jitter. Metric depth is divided by the zoom against the stretched whole photo, the geometric mean of the
    two axes' zooms.

    Args:
        size: (H, W) of the result.
        scale: range of the share of the sides.
        aspect: largest |ln| of the aspect jitter.
        whole: probability of taking the whole photo.
    """

    def __init__(
        self, size: tuple[int, int], scale: tuple[float, float], aspect: float, whole: float
    ) -> None:
        super().__init__()
        self.size = size
        self.scale = scale
        self.aspect = aspect
        self.whole = whole

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The region as shares of the photo, on whole pixels of the photo."""
        image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
        height, width = image.shape[-2:]
        whole, scale, aspect, top, left = torch.rand(5).tolist()
        if whole < self.whole:
            return {"region": Box(0.0, 0.0, 1.0, 1.0)}
        side = self.scale[0] + scale * (self.scale[1] - self.scale[0])
        stretch = math.exp((aspect - 0.5) * self.aspect)
        rows = max(1, round(height * min(1.0, side / stretch)))
        columns = max(1, round(width * min(1.0, side * stretch)))
        first_row, first_column = round(top * (height - rows)), round(left * (width - columns))
        return {"region": Box(first_row / height, first_column / width, rows / height, columns / width)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The region of an image (antialiased) or a map, stretched to the size."""
        height, width = inpt.shape[-2:]
        region: Box = params["region"]
        box = Box(region.top * height, region.left * width, region.height * height, region.width * width)
        if isinstance(inpt, tv_tensors.Image):
            box = Box(*(round(side) for side in box))
        result: Tensor = functional.resized_crop(inpt, *box, size=list(self.size), antialias=True)
        return result


def training_transform(size: tuple[int, int], augment: AugmentConfig) -> v2.Transform:
    """Random rotation, crop, flip and colours; draws from torch's global generator."""
    rotation = v2.RandomRotation(augment.degrees, InterpolationMode.BILINEAR, fill=_MEAN_COLOUR)
    return v2.Compose(
        [
            v2.RandomApply([rotation], augment.rotate),
            RandomStretchCrop(size, augment.scale, augment.aspect, augment.whole),
            v2.RandomHorizontalFlip(augment.flip),
            ColourJitter(augment),
        ]
    )


def plain_transform(size: tuple[int, int]) -> v2.Transform:
    """The stretch alone, as the server does it."""
    return v2.Resize(list(size), antialias=True)
