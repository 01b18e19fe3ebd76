"""WebP: the still image or the first frame, cut out of the file."""

import struct
from typing import Final

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, opener, too_much

MAX_CHUNKS: Final = 65_536
_ANIMATION: Final = 0x02
_ALPHA: Final = 0x10


def look(data: bytes, limits: ImageLimits) -> Still:
    """Walk the chunks.

    Raises:
        InvalidImageError: the file is cut short or has no pixels.
        ImageTooLargeError: there are too many chunks.
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise InvalidImageError("the WebP image is cut short")
    found: dict[bytes, bytes] = {}
    position, count, frames = 12, 0, 0
    while position + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position : position + 8 + length + (length & 1)]
        frames += kind == b"ANMF"
        found.setdefault(kind, body)
        position += len(body)
        count += 1
        if count > MAX_CHUNKS:
            raise too_much("chunks", count, MAX_CHUNKS)
    extended = found.get(b"VP8X", b"")
    if not extended:
        kind = b"VP8 " if b"VP8 " in found else b"VP8L"
        parts = found.get(kind, b"")
        width, height = _size(parts)
    else:
        flags = extended[8] & (_ANIMATION | _ALPHA)
        width, height = (int.from_bytes(extended[i : i + 3], "little") + 1 for i in (12, 15))
        kinds = (b"ANIM", b"ANMF") if flags & _ANIMATION else (b"ALPH", b"VP8 ", b"VP8L")
        parts = extended[:8] + bytes([flags]) + extended[9:]
        parts += b"".join(found[kind] for kind in kinds if kind in found)
    return Still(
        "WEBP",
        width,
        height,
        opener("WEBP", b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts),
        found.get(b"EXIF", b"")[8:],
        frames > 1,
    )


def _size(chunk: bytes) -> tuple[int, int]:
    """Width and height that a chunk of pixels announces."""
    if chunk.startswith(b"VP8 ") and chunk[11:14] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", chunk, 14)
        return width & 0x3FFF, height & 0x3FFF
    if chunk.startswith(b"VP8L") and chunk[8:9] == b"\x2f":
        (bits,) = struct.unpack_from("<I", chunk, 9)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise InvalidImageError("the WebP image has no pixels")
