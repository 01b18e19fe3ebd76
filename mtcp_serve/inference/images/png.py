"""PNG: of its chunks only those that the pixels need are given to the decoder."""

import struct
import zlib
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.rgb import by_rows, eight_bits
from mtcp_serve.inference.images.still import Still, not_supported, opener, too_much

MAX_CHUNKS: Final = 65_536
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # colour types
_NEEDED: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")


def look(data: bytes, limits: ImageLimits) -> Still:
    """Walk the chunks. Text, profiles and other ancillary chunks may be damaged, the rest may not.

    Raises:
        InvalidImageError: a chunk that the pixels need is damaged or missing.
        ImageTooLargeError: there are too many chunks.
    """
    found: dict[bytes, list[memoryview]] = {}
    view = memoryview(data)
    position, count, frames = len(_SIGNATURE), 0, 1
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        body = view[position + 8 : position + 8 + length]
        end = position + 12 + length
        count += 1
        if count > MAX_CHUNKS:
            raise too_much("chunks", count, MAX_CHUNKS)
        if kind == b"IEND":
            break
        if kind in _NEEDED:
            if end > len(data):
                raise InvalidImageError("the PNG image is cut short")
            if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
                raise InvalidImageError(f"the PNG image is damaged: its {kind.decode()} chunk")
            found.setdefault(kind, []).append(body)
        elif kind == b"eXIf":
            found.setdefault(kind, [body])
        elif kind == b"acTL" and len(body) >= 4:
            (frames,) = struct.unpack_from(">I", body)
        position = end
    header = bytes(found.get(b"IHDR", [b""])[0])
    if len(header) != 13 or b"IDAT" not in found:
        raise InvalidImageError("the PNG image has no header or no pixels")
    width, height, bits, color = struct.unpack_from(">IIBB", header)
    key = bytes(found.pop(b"tRNS")[0]) if b"tRNS" in found and color in (_GREY, _RGB) else b""
    parts = {kind: b"".join(found[kind]) for kind in _NEEDED if kind in found}
    if color == _RGB and key:
        if bits == 16:
            raise not_supported("a PNG of 16 bits a colour with a transparent colour")
        parts[b"tRNS"] = key
    clean = _SIGNATURE + b"".join(_chunk(kind, parts[kind]) for kind in _NEEDED if kind in parts)
    clean += _chunk(b"IEND", b"")
    return Still(
        "PNG",
        width,
        height,
        _Keyed(clean, bits, key) if color == _GREY and len(key) == 2 else opener("PNG", clean),
        bytes(found.get(b"eXIf", [b""])[0]),
        frames > 1,
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


class _Keyed:
    """Opens a grey PNG one of whose grey levels is transparent, which Pillow gets wrong but at 8 bits."""

    def __init__(self, data: bytes, bits: int, key: bytes) -> None:
        self._data = data
        (level,) = struct.unpack(">H", key)
        self._level = level if bits >= 8 else level * (255 // (2**bits - 1))

    def __call__(self) -> Image.Image:
        with Image.open(BytesIO(self._data), formats=("PNG",)) as image:
            return by_rows(image if image.mode.startswith("I") else image.convert("L"), "LA", self._keyed)

    def _keyed(self, part: Image.Image) -> Image.Image:
        values = np.asarray(part)
        alpha = np.where(values == self._level, np.uint8(0), np.uint8(255))
        if values.dtype != np.uint8:
            values = eight_bits(values)
        return Image.merge("LA", (Image.fromarray(values), Image.fromarray(alpha)))
