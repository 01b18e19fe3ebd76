"""Image files built byte by byte, of kinds that no encoder here writes."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def png(
    rows: NDArray[np.integer], bits: int, color: int, *between: tuple[bytes, bytes], palette: bytes = b""
) -> bytes:
    """A PNG of samples [height, width, samples]; ``between`` are chunks between its header and pixels."""
    height, width, _ = rows.shape
    if bits == 16:
        packed = rows.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        packed = pack(rows.reshape(height, -1), bits)
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else []), *between]
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header announces a size, with next to no pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pack(rows: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Rows of samples of at most 8 bits, most significant first, each row to whole bytes."""
    spread = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(spread.reshape(len(rows), -1), axis=-1)


def tiff(
    fields: Mapping[int, tuple[int, ...]], strips: Sequence[bytes], order: str = "<", big: bool = False
) -> bytes:
    """A TIFF of tags (all LONG) and strips, whose places and sizes are added unless ``fields`` has them."""
    start = 16 if big else 8
    places = [start + sum(map(len, strips[:index])) for index in range(len(strips))]
    tags = {273: tuple(places), 279: tuple(map(len, strips)), **fields}
    data = bytearray(b"".join(strips))
    entries = b""
    word, inline = (order + "Q", 8) if big else (order + "I", 4)
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > inline:
            place = start + len(data)
            data += packed
            packed = struct.pack(word, place)
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, 4, len(values)) + packed.ljust(
            inline, b"\0"
        )
    directory = struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + struct.pack(word, 0)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)
    return mark + head + struct.pack(word, start + len(data)) + bytes(data) + directory


def bmp(
    width: int,
    height: int,
    bits: int,
    compression: int,
    pixels: bytes,
    masks: Sequence[int] = (),
    palette: bytes = b"",
    header: int = 40,
) -> bytes:
    """A BMP; negative ``height``: from the top. ``masks`` follow a header of 40 bytes, or are part of it."""
    colors = len(palette) // 4
    fields = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, 0, 0, 0, colors, 0)
    fields += struct.pack(f"<{len(masks)}I", *masks)
    fields = fields.ljust(header, b"\0") + palette
    start = 14 + len(fields)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + fields + pixels


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG in which ``scans`` scans of a few bytes each visit every block."""
    blocks = (width + 7) // 8 * ((height + 7) // 8)
    head = b"\xff\xd8" + segment(0xDB, bytes([0] + 64 * [16]))
    head += segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0")
    head += segment(0xC4, bytes([0x00, 1, *15 * [0], 0]))  # the one code of differences: none
    head += segment(
        0xC4, bytes([0x10, 1, 1, *14 * [0], 0xE0, 0x00])
    )  # '0': 16384 or more empty blocks, '10': one
    levels = segment(0xDA, b"\x01\x01\0\0\0\0") + _stuffed("0" * blocks)
    whole, rest = divmod(blocks, 32767)
    bits = ("0" + "1" * 14) * whole
    if rest >= 16384:
        bits, rest = bits + "0" + format(rest - 16384, "014b"), 0
    one = segment(0xDA, b"\x01\x01\0\x01\x3f\0") + _stuffed(bits + "10" * rest)
    return head + levels + one * scans + b"\xff\xd9"


def _stuffed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
