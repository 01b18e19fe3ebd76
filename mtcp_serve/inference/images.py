"""Untrusted bytes to an upright RGB photo, within limits that are checked before any pixel is decoded."""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mtcp_serve.errors import (
    EmptyImageError,
    ImageTooLargeError,
    InvalidImageError,
    PayloadTooLargeError,
)
from mtcp_serve.inference.exif import focal_lengths, orientation

PILLOW_MAX_PIXELS: Final = 178_956_970
"""Pillow refuses to open an image of more pixels, whatever the limits allow."""
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read, told apart by content, whatever a file's name or Content-Type says."""

_JPEG: Final = ("JPEG", "MPO")  # a phone's JPEG with a second picture inside opens as MPO
_UPRIGHT: Final = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS: Final = range(5, 9)  # orientations that swap width and height


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: file size (bytes), pixels, and either side (pixels)."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 2**25
    max_side: int = 16384


@dataclass(frozen=True)
class ImageInfo:
    """What a file said of itself. ``width`` and ``height`` (pixels) are those of the upright photo."""

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
    """Focal lengths across and down by the EXIF, pixels of the upright photo."""


@dataclass(frozen=True)
class Photo:
    """A decoded photo: ``image`` is upright RGB and may be smaller than ``info`` says (see `decode`)."""

    image: Image.Image
    info: ImageInfo

    def resized(self, height: int, width: int) -> NDArray[np.uint8]:
        """The photo stretched to ``[height, width, 3]`` uint8 RGB, area-averaged where it shrinks."""
        size = (width, height)
        image = self.image
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        return np.asarray(image)


def decode(data: bytes, limits: ImageLimits, enough: int | None = None) -> Photo:
    """Decode ``data``, apply its EXIF orientation, and bring any pixel format to RGB (alpha over white).

    With ``enough`` (pixels) a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides
    keep at least that many pixels; that is several times faster where a photo is much larger than needed.

    Raises:
        EmptyImageError: there are no bytes.
        PayloadTooLargeError: there are more bytes than ``limits.max_bytes``.
        ImageTooLargeError: the header announces more pixels or a longer side than the limits.
        InvalidImageError: not one of `FORMATS`, damaged, cut short, or of a colour space that is not known.
    """
    with _open(data, limits) as image:
        try:
            return _load(image, enough)
        except MemoryError:
            raise
        except Exception as error:
            raise InvalidImageError(f"the {image.format} image is damaged or cut short") from error


def measure(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Width and height (pixels) that the header of ``data`` announces, before EXIF orientation.

    Raises:
        RequestError: what `decode` raises before it decodes pixels.
    """
    with _open(data, limits) as image:
        return image.size


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    """The image with its header read and found within the limits."""
    if not data:
        raise EmptyImageError("the image has 0 bytes")
    if len(data) > limits.max_bytes:
        raise PayloadTooLargeError(f"the image has {len(data)} bytes, the limit is {limits.max_bytes}")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the image header announces more pixels than the limit of {limits.max_pixels}"
        ) from error
    except UnidentifiedImageError as error:
        raise InvalidImageError("the bytes are not an image in a format that this server reads") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen types on damaged files
        raise InvalidImageError("the image header is damaged or cut short") from error
    _check_size(image, limits)
    return image


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the image is {width} x {height} = {width * height} pixels, the limit is {limits.max_pixels}"
        )
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"the image is {width} x {height} pixels, the limit of a side is {limits.max_side}"
        )


def _load(image: Image.Image, enough: int | None) -> Photo:
    """Decode the pixels of an opened file."""
    source, mode = str(image.format), image.mode
    width, height = image.size
    turned, focal = _orientation(image), _focal_lengths(image, width, height)
    if source in _JPEG and enough is not None:
        image.draft(None, (enough, enough))
    image.load()
    turned = max(turned, _orientation(image))  # PNG may carry its EXIF after the pixels
    focal = focal or _focal_lengths(image, width, height)
    animated = source != "MPO" and bool(getattr(image, "is_animated", False))
    rgb = _to_rgb(image)
    if turned in _UPRIGHT and source != "TIFF":  # Pillow turns TIFF while loading
        rgb = rgb.transpose(_UPRIGHT[turned])
        if turned in _QUARTER_TURNS:
            width, height = height, width
            focal = focal and focal[::-1]
    info = ImageInfo(
        width=width,
        height=height,
        format="JPEG" if source in _JPEG else source,
        mode=mode,
        exif_rotated=turned in _UPRIGHT,
        animated=animated,
        focal=focal,
    )
    return Photo(rgb, info)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it cannot be read."""
    try:
        return orientation(image.getexif())
    except Exception:  # damaged EXIF must not cost the photo
        return 1


def _focal_lengths(image: Image.Image, width: int, height: int) -> tuple[float, float] | None:
    """Focal lengths in pixels of the stored image by its EXIF, where that can be read."""
    try:
        return focal_lengths(image.getexif(), width, height)
    except Exception:  # damaged EXIF must not cost the photo
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image; 16-bit grey is scaled to 8 bits, 32-bit and float grey stretched to their range."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        values -= values.min()
        values *= 255.0 / (values.max() or 1.0)
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")
