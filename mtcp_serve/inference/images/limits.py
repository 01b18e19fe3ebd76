"""How large an image may be, and how much work it may make."""

from dataclasses import dataclass
from typing import Final

from mtcp_serve.errors import ImageTooLargeError, PayloadTooLargeError

PILLOW_MAX_PIXELS: Final = 178_956_970
"""Pillow refuses to open an image of more pixels, whatever the limits allow."""


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded; everything is checked before the pixels are.

    Beside these, a file may have so many parts (segments, chunks, scans, strips, tags) as real files have;
    the module of each format states its numbers.
    """

    max_bytes: int = 20 * 2**20
    """File size, bytes."""
    max_pixels: int = 2**25
    """Pixels held in memory. A JPEG may have `OVERSIZE` times as many where it is decoded at reduced size."""
    max_side: int = 16384
    """Longer side, pixels."""
    max_seconds: float = 10.0
    """Time for AVIF and HEIC, whose work no header tells: their decoder is a process that is then ended."""

    def check_bytes(self, count: int) -> None:
        """Refuse a file of ``count`` bytes where that is too many.

        Raises:
            PayloadTooLargeError: it is.
        """
        if count > self.max_bytes:
            raise PayloadTooLargeError(f"the image has {count} bytes, the limit is {self.max_bytes}")

    def check_size(
        self, width: int, height: int, hint: str | None = None, what: str = "the image is", times: int = 1
    ) -> None:
        """Refuse a picture that is too large; it may have ``times`` times ``max_pixels``.

        ``hint`` says what to do; ``what`` begins the message.

        Raises:
            ImageTooLargeError: it has too many pixels, or too long a side.
        """
        most = self.max_pixels * times
        if width * height > most:
            raise ImageTooLargeError(
                f"{what} {width} x {height} = {width * height} pixels, the limit is {most}", hint
            )
        if max(width, height) > self.max_side:
            raise ImageTooLargeError(
                f"{what} {width} x {height} pixels, the limit of a side is {self.max_side}", hint
            )


DEFAULT_LIMITS: Final = ImageLimits()
BYTES_PER_PIXEL: Final = 20
"""Memory that reading takes at most, bytes for each pixel (WebP; RGB takes 4), beside thrice the file."""
OVERSIZE: Final = 4
"""A JPEG that is decoded at reduced size may have so many times ``max_pixels``: 134 million by default."""
