"""Untrusted bytes to an upright RGB image, within limits that are checked before any pixel is decoded."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Final

from PIL import Image

from mtcp_serve.errors import (
    EmptyImageError,
    ImageTooLargeError,
    InvalidImageError,
    RequestError,
)
from mtcp_serve.inference.images import bmp, gif, isobmff, isolated, jpeg, png, tiff, webp
from mtcp_serve.inference.images.decoded import DecodedImage, ImageInfo
from mtcp_serve.inference.images.exif import QUARTER_TURNS, UPRIGHT, focal_lengths, orientation
from mtcp_serve.inference.images.limits import DEFAULT_LIMITS, OVERSIZE, PILLOW_MAX_PIXELS, ImageLimits
from mtcp_serve.inference.images.rgb import to_rgb
from mtcp_serve.inference.images.still import Still

_LOOKS: Final[dict[str, tuple[Callable[[bytes], bool], Callable[[bytes, ImageLimits], Still]]]] = {
    "JPEG": (lambda head: head.startswith(b"\xff\xd8\xff"), jpeg.look),
    "PNG": (lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), png.look),
    "WEBP": (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", webp.look),
    "GIF": (lambda head: head.startswith((b"GIF87a", b"GIF89a")), gif.look),
    "BMP": (lambda head: head.startswith(b"BM"), bmp.look),
    "TIFF": (lambda head: head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")), tiff.look),
}
FORMATS: Final = (*_LOOKS, *(format for format in ("AVIF", "HEIF") if isobmff.readable(format)))
"""The formats that are read, told apart by content, whatever a file's name or Content-Type says.

``HEIF``, which is what HEIC files are, needs the extra ``heif``; ``AVIF`` a Pillow that has it.
"""

IMAGE_SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
) | frozenset((".avif", ".heic", ".heif", ".hif"))
"""Endings of the files that are taken from a folder; a file that is named may be called anything."""


def read(
    path: str | PathLike[str], limits: ImageLimits = DEFAULT_LIMITS, enough: int | None = None
) -> DecodedImage:
    """`decode` the file at ``path``.

    Raises:
        OSError: the file cannot be read.
        RequestError: what `decode` raises.
    """
    limits.check_bytes(Path(path).stat().st_size)
    return decode(Path(path).read_bytes(), limits, enough)


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS, enough: int | None = None) -> DecodedImage:
    """Decode ``data``, apply its EXIF orientation, and bring any pixel format to RGB (alpha over white).

    With ``enough`` (pixels) a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides
    keep at least that many pixels; that is several times faster where an image is much larger than needed,
    and allows for `OVERSIZE` times ``limits.max_pixels``. ``info`` has the size before that, and ``resized``
    decodes again where more pixels are needed.

    An orientation in XMP does not count, nor do colour profiles.

    Raises:
        EmptyImageError: there are no bytes.
        PayloadTooLargeError: there are more bytes than ``limits.max_bytes``.
        ImageTooLargeError: the header announces more pixels or a longer side than the limits, or the file
            has so many parts that decoding would take too long.
        InvalidImageError: not one of `FORMATS`, damaged, cut short, or of a kind that is not supported.
    """
    if _isolated(data, limits):
        return isolated.decode(data, limits, enough)
    return decode_here(data, limits, enough)


def decode_here(data: bytes, limits: ImageLimits, enough: int | None) -> DecodedImage:
    """`decode` in this process, whatever the format.

    Raises:
        RequestError: what `decode` raises.
    """
    still = _look(data, limits, enough is not None)
    try:
        decoded = _load(still, limits, enough)
    except (MemoryError, RequestError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(
            f"the image is {still.width} x {still.height} pixels, Pillow's limit is {PILLOW_MAX_PIXELS}"
        ) from error
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files
        raise InvalidImageError(f"the {still.format} image is damaged or cut short") from error
    whole = decoded.image.size == (decoded.info.width, decoded.info.height)
    return decoded if whole else replace(decoded, again=partial(decode_here, data, limits))


def is_image(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (64 bytes) is an image, of a format that `decode` knows."""
    return any(matches(head[:16]) for matches, _ in _LOOKS.values()) or isobmff.container(head) is not None


def measure(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height (pixels) that the header of ``data`` announces, before EXIF orientation.

    Raises:
        RequestError: what `decode` raises before it decodes pixels.
    """
    if _isolated(data, limits):
        return isolated.measure(data, limits)
    return measure_here(data, limits)


def measure_here(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """`measure` in this process, whatever the format.

    Raises:
        RequestError: what `measure` raises.
    """
    still = _look(data, limits, False)
    return still.width, still.height


def _isolated(data: bytes, limits: ImageLimits) -> bool:
    """Whether another process has to read the file; its bytes are within the limits.

    Raises:
        RequestError: what `decode` raises for the number of bytes; InvalidImageError: there is no decoder.
    """
    if not data:
        raise EmptyImageError("the image has 0 bytes")
    limits.check_bytes(len(data))
    format = isobmff.container(data[:64])
    if format is None:
        return False
    isobmff.check_readable(format)
    return True


def _look(data: bytes, limits: ImageLimits, reducible: bool) -> Still:
    """The still image of the file, found within the limits."""
    format, look = _reader(data)
    try:
        still = look(data, limits)
    except (MemoryError, RequestError):
        raise
    except Exception as error:  # what the walks and Pillow's readers raise on damaged files
        raise InvalidImageError(f"the {format} image's header is damaged or cut short") from error
    _check_size(format, still.width, still.height, limits, reducible)
    return still


def _reader(data: bytes) -> tuple[str, Callable[[bytes, ImageLimits], Still]]:
    """The format of the file and what looks at such files.

    Raises:
        InvalidImageError: it is none that is read.
    """
    head = data[:16]
    for format, (matches, look) in _LOOKS.items():
        if matches(head):
            return format, look
    contained = isobmff.container(data[:64])
    if contained is None:
        raise InvalidImageError("the bytes are not an image in a format that this server reads")
    return contained, isobmff.look


def _check_size(format: str, width: int, height: int, limits: ImageLimits, reducible: bool) -> None:
    if width < 1 or height < 1:
        raise InvalidImageError(f"the {format} image's header is damaged: {width} x {height} pixels")
    times = OVERSIZE if format == "JPEG" else 1
    reduced = not reducible and limits.max_pixels < width * height <= limits.max_pixels * times
    hint = "ask for size=model, or scale the image down" if reduced else None
    limits.check_size(width, height, hint, times=times if reducible else 1)


def _load(still: Still, limits: ImageLimits, enough: int | None) -> DecodedImage:
    """Decode the pixels and turn them upright."""
    mode, rgb = _pixels(still, limits, enough)
    width, height = still.width, still.height
    focal = focal_lengths(still.exif, width, height)
    turned = orientation(still.exif)
    if turned in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[turned])
        if turned in QUARTER_TURNS:
            width, height = height, width
            focal = focal and focal[::-1]
    info = ImageInfo(width, height, still.format, mode, turned in UPRIGHT, still.animated, focal)
    return DecodedImage(rgb, info)


def _pixels(still: Still, limits: ImageLimits, enough: int | None) -> tuple[str, Image.Image]:
    """The mode of the file and its pixels as RGB; what the decoder took is given back."""
    with still.open() as image:
        two_sizes = InvalidImageError(f"the {still.format} image's header is damaged: it has two sizes")
        if image.size != (still.width, still.height):
            raise two_sizes
        mode = image.mode
        if enough is not None:
            image.draft(None, (enough, enough))
            _check_size(still.format, *image.size, limits, False)
        announced = image.size
        image.load()
        if image.size != announced:  # libheif learns the size of the coded picture when it decodes it
            raise two_sizes
        return mode, to_rgb(image)
