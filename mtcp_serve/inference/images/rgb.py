"""Any pixel format of Pillow to RGB, a few rows at a time where that saves copies of the image."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ROWS: Final = 256


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image; 16-bit grey is scaled to 8 bits, 32-bit and float grey stretched to their range.

    Alpha lies on white.
    """
    if image.mode.startswith("I;16"):
        return by_rows(image, "RGB", lambda part: grey(eight_bits(np.asarray(part))))
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.has_transparency_data:
        return by_rows(image, "RGB", _over_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def by_rows(image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image of ``mode`` that ``change`` makes of some rows of ``image`` after the other."""
    made = Image.new(mode, image.size)
    for box in _boxes(image):
        made.paste(change(image.crop(box)), box)
    return made


def eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit values scaled to 8 bits."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def grey(values: NDArray[np.uint8]) -> Image.Image:
    """An RGB image of grey values."""
    return Image.fromarray(values).convert("RGB")


def _boxes(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    for top in range(0, image.height, _ROWS):
        yield 0, top, image.width, min(image.height, top + _ROWS)


def _stretched(image: Image.Image) -> Image.Image:
    """Grey from the least to the greatest value; what is not finite counts as 0."""

    def finite(part: Image.Image) -> NDArray[np.float64]:
        return np.nan_to_num(np.asarray(part, dtype=np.float64), posinf=0.0, neginf=0.0)

    ends = [(part.min(), part.max()) for part in (finite(image.crop(box)) for box in _boxes(image))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    span = high - low or 1.0
    return by_rows(
        image, "RGB", lambda part: grey(np.rint(255.0 * ((finite(part) - low) / span)).astype(np.uint8))
    )


def _over_white(part: Image.Image) -> Image.Image:
    white = Image.new("RGBA", part.size, "white")
    white.alpha_composite(part.convert("RGBA"))
    return white.convert("RGB")
