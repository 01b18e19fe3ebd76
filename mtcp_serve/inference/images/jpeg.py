"""JPEG: its markers are walked, so that the decoder's work is known before it starts.

libjpeg visits each block of a component once for every scan that names it, however few bytes the scan has.
"""

import re
import struct
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from math import ceil
from typing import Final

from PIL.JpegImagePlugin import JpegImageFile

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, not_supported, too_much

MAX_SCANS: Final = 500
"""As NVIDIA's DALI; encoders write about ten."""
MAX_SEGMENTS: Final = 16_384
MAX_PASSES: Final = 100
"""Blocks that all scans visit together, as passes over a grey image of ``max_pixels``; encoders need 30."""
COEFFICIENT_BYTES: Final = 8
"""Memory for the coefficients of an image in several scans, bytes for each of ``max_pixels``."""

_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # stuffing, fill, TEM and RSTn passed over
_SOI, _EOI, _SOS, _APP0, _EXIF, _ADOBE, _DQT = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xDB
_FRAMES: Final = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_READ: Final = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # sequential and progressive, Huffman and arithmetic
_PROGRESSIVE: Final = {0xC2, 0xCA}
_NEEDED: Final = {0xC4, 0xCC, _DQT, 0xDD, _APP0, _ADOBE} | _FRAMES  # DHT, DAC, DRI and what says the colours


@dataclass(frozen=True)
class _Frame:
    """The frame header; ``components`` maps an id to its horizontal and vertical sampling."""

    width: int
    height: int
    progressive: bool
    components: dict[int, tuple[int, int]]

    def blocks(self, scan: list[int]) -> int:
        """Blocks that a scan of the components ``scan`` visits.

        Raises:
            KeyError: the frame has no such component.
        """
        across = max(h for h, _ in self.components.values())
        down = max(v for _, v in self.components.values())
        if len(scan) == 1:
            h, v = self.components[scan[0]]
            return ceil(self.width * h / across / 8) * ceil(self.height * v / down / 8)
        units = ceil(self.width / across / 8) * ceil(self.height / down / 8)
        return units * sum(self.components[name][0] * self.components[name][1] for name in scan)


def look(data: bytes, limits: ImageLimits) -> Still:
    """Walk the markers.

    Raises:
        InvalidImageError: the markers are damaged, or the kind of JPEG is not supported.
        ImageTooLargeError: decoding would take too long or too much memory.
    """
    frame, exif, start, head = None, b"", 0, [b"\xff\xd8"]
    segments = scans = visits = 0
    position = 2
    while match := _MARKER.search(data, position):
        marker, begin = match[1][0], match.end()
        if marker in (_SOI, _EOI):
            break
        (length,) = struct.unpack_from(">H", data, begin)
        body = data[begin + 2 : begin + length]
        position = begin + length
        segments += 1
        if segments > MAX_SEGMENTS:
            raise too_much("segments", segments, MAX_SEGMENTS)
        if marker in _FRAMES and frame is None:
            frame = _frame(marker, body)
        elif marker == _EXIF and not exif and body.startswith(b"Exif\0\0"):
            exif = body
        elif marker == _SOS:
            if frame is None:
                raise InvalidImageError("the JPEG image has pixels before its size")
            start = start or match.start()
            scans += 1
            scan = list(body[1 : 1 + 2 * body[0] : 2])
            visits += frame.blocks(scan)
            _check_work(frame, scans, visits, len(scan) < len(frame.components), limits)
        if marker in _NEEDED and not start:
            head.append(data[match.start() : position])
    if frame is None or not start:
        raise InvalidImageError("the JPEG image has no pixels")
    return Still(
        "JPEG",
        frame.width,
        frame.height,
        partial(JpegImageFile, BytesIO(b"".join(head) + data[start:])),
        exif,
    )


def _frame(marker: int, body: bytes) -> _Frame:
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if marker not in _READ:
        raise not_supported("a lossless or hierarchical JPEG")
    if bits != 8:
        raise not_supported(f"a JPEG of {bits} bits a sample")
    if count not in (1, 3, 4):
        raise not_supported(f"a JPEG of {count} colours")
    components = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * count, 3)}
    if len(components) != count or not all(1 <= n <= 4 for hv in components.values() for n in hv):
        raise InvalidImageError("the JPEG image's header is damaged")
    return _Frame(width, height, marker in _PROGRESSIVE, components)


def _check_work(frame: _Frame, scans: int, visits: int, partly: bool, limits: ImageLimits) -> None:
    if scans > MAX_SCANS:
        raise too_much("scans", scans, MAX_SCANS)
    most = MAX_PASSES * limits.max_pixels // 64
    if visits > most:
        raise too_much("blocks of pixels in its scans", visits, most)
    needed = 128 * frame.blocks(list(frame.components))
    if (frame.progressive or partly) and needed > COEFFICIENT_BYTES * limits.max_pixels:
        raise ImageTooLargeError(
            f"the {frame.width} x {frame.height} pixels of the JPEG are in several scans, which takes "
            f"{needed:,} bytes to decode; the limit is {COEFFICIENT_BYTES * limits.max_pixels:,}",
            "scale the image down, or save it as a baseline JPEG",
        )
