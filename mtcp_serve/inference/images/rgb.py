"""Any pixel format of Pillow to RGB."""

from typing import Final

import numpy as np
from PIL import Image

_ROWS: Final = 256
"""Rows that are laid over white at a time, which saves three copies of the image."""


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB image; 16-bit grey is scaled to 8 bits, 32-bit and float grey stretched to their range.

    Alpha lies on white.
    """
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= values.min()
        values *= 255.0 / (values.max() or 1.0)
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    rgb = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _ROWS):
        box = (0, top, image.width, min(image.height, top + _ROWS))
        part = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", part.size, "white")
        white.alpha_composite(part)
        rgb.paste(white.convert("RGB"), box)
    return rgb
