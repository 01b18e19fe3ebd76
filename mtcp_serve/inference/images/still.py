"""What every format's module gives: one still image, with nothing else of its file."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError


@dataclass(frozen=True)
class Still:
    """The image of a file that is read. ``width`` and ``height`` (pixels) are those before orientation."""

    format: str
    width: int
    height: int
    open: Callable[[], Image.Image]
    """Opens it; the pixels may be decoded later."""
    exif: bytes = b""
    """The EXIF block."""
    animated: bool = False
    """Whether the file has more frames or pages."""


def opener(format: str, data: bytes) -> Callable[[], Image.Image]:
    """Opens ``data`` with Pillow's reader of ``format`` alone."""
    return partial(Image.open, BytesIO(data), formats=(format,))


def not_supported(what: str) -> InvalidImageError:
    """The error for a file that is as it should be, but of a kind that is not read."""
    return InvalidImageError(f"not supported: {what}", "convert the image to PNG or JPEG")


def too_much(what: str, count: int, limit: int) -> ImageTooLargeError:
    """The error for a file whose parts would take too long."""
    return ImageTooLargeError(
        f"the image has {count:,} {what}, the limit is {limit:,}", "save the image again with fewer of them"
    )
