"""Photos as Triton's model takes them: upright RGB, stretched to the manifest's size.

The gateway does the same on its side; a client of Triton must do it itself.
"""

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from clients.errors import InvalidRequestError
from mtcp_serve.bundle.manifest import InputSpec

Photo = str | PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""A file, the bytes of one, a Pillow image, or uint8 RGB ``[height, width, 3]``."""
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def photos_in(folder: str | PathLike[str]) -> list[Path]:
    """The photos in a folder, by name.

    Raises:
        InvalidRequestError: the folder cannot be read.
    """
    try:
        return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in _SUFFIXES)
    except OSError as error:
        raise InvalidRequestError(f"{folder} cannot be read: {error.strerror or error}") from error


def to_pixels(photo: Photo, size: InputSpec) -> NDArray[np.uint8]:
    """``photo`` as uint8 RGB ``[size.height, size.width, 3]``; alpha over white, EXIF orientation applied.

    Raises:
        InvalidRequestError: it is no image, or an array of another type or shape.
    """
    try:
        image = _upright(photo, enough=2 * max(size.height, size.width))
    except OSError as error:  # Pillow's errors are OSErrors, but for a few
        raise InvalidRequestError(f"{_name(photo)} cannot be read: {error.strerror or error}") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidRequestError(f"{_name(photo)} is no image that can be used: {error}") from error
    if image.size != (size.width, size.height):
        image = image.resize((size.width, size.height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(image)


def _upright(photo: Photo, enough: int) -> Image.Image:
    """RGB; of a JPEG no more than is needed for ``enough`` pixels a side is decoded."""
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(f"arrays must be uint8 [height, width, 3]; this is {photo.dtype} {photo.shape}")
        return Image.fromarray(photo)
    if isinstance(photo, Image.Image):
        return _rgb(photo)
    with Image.open(BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (enough, enough))
        return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    turned = _eight_bits(ImageOps.exif_transpose(image))
    if turned.has_transparency_data:
        white = Image.new("RGBA", turned.size, "white")
        white.alpha_composite(turned.convert("RGBA"))
        return white.convert("RGB")
    return turned.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, 32-bit and float grey stretched to their range; else as it is."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= values.min()
        values *= 255.0 / (values.max() or 1.0)
        return Image.fromarray(np.rint(values).astype(np.uint8))
    return image


def _name(photo: Any) -> str:
    return str(photo) if isinstance(photo, str | PathLike) else f"the photo ({type(photo).__name__})"
