"""What reading an image file gives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class ImageInfo:
    """What a file said of itself. ``width`` and ``height`` (pixels) are those of the upright image."""

    width: int
    height: int
    format: str
    mode: str
    """Pillow's name of the pixel format in the file, such as ``RGB`` or ``CMYK``."""
    exif_rotated: bool
    """Whether an EXIF orientation was applied."""
    animated: bool
    """Whether there are more frames or pages; only the first was read."""
    focal: tuple[float, float] | None = None
    """Focal lengths across and down by the EXIF, pixels of the upright image."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: ``image`` is upright RGB and may be smaller than ``info`` says (see `decode`)."""

    image: Image.Image
    info: ImageInfo
    again: "Callable[[int], DecodedImage] | None" = None
    """Decodes the file once more with at least so many pixels a side, where ``image`` is smaller than it."""

    def resized(self, height: int, width: int) -> NDArray[np.uint8]:
        """The image stretched to ``[height, width, 3]`` uint8 RGB, area-averaged where it shrinks.

        It is decoded once more where that takes more pixels than ``image`` has, and the file has more.

        Raises:
            RequestError: what decoding raises.
        """
        size = (width, height)
        image = self.image
        if self.again is not None and (image.width < width or image.height < height):
            image = self.again(max(size)).image
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return np.asarray(image)
