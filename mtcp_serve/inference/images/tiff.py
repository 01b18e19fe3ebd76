"""TIFF: a directory of only what the pixels need is given to the decoder.

Its strips and tiles are counted before, and kinds that the decoder would misread are refused
(`mtcp_serve.inference.images.tiff_kinds`).
"""

import struct
from dataclasses import dataclass
from math import ceil
from typing import Final

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, not_supported, opener, too_much
from mtcp_serve.inference.images.tiff_kinds import Tag, Tags, check_kind

MAX_TAGS: Final = 4096
MAX_PARTS: Final = 65_536
"""Strips or tiles."""
MAX_RAW_TILES: Final = 8192
"""Tiles that are not compressed, each of which Pillow reads a part of the file for."""
REREAD: Final = 4
"""Strips may share bytes; together they may have so many times the bytes of the file."""

_TYPES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
_SIZES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
} | dict.fromkeys((16, 17, 18), 8)
_NEEDED: Final = set(Tag) - {Tag.ORIENTATION}
_STRIPS: Final = {Tag.STRIP_OFFSETS, Tag.ROWS, Tag.STRIP_BYTES}
_TILES: Final = {Tag.TILE_WIDTH, Tag.TILE_HEIGHT, Tag.TILE_OFFSETS, Tag.TILE_BYTES}


@dataclass(frozen=True)
class _Layout:
    """How a directory is written, in classic TIFF and in BigTIFF."""

    order: str
    big: bool

    @property
    def first(self) -> tuple[str, int]:
        """Type and place of the first directory's place."""
        return (self.order + "Q", 8) if self.big else (self.order + "I", 4)

    @property
    def count(self) -> str:
        """Type of the number of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """Type of an entry: tag, type, count, value or its place."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def place(self) -> str:
        """Type of a place in the file."""
        return self.order + ("Q" if self.big else "I")


def look(data: bytes, limits: ImageLimits) -> Still:
    """Read the first directory.

    Raises:
        InvalidImageError: it is damaged, or the kind of TIFF is not supported.
        ImageTooLargeError: there are too many tags or strips, or they have too many bytes or pixels.
    """
    layout = _Layout("<" if data.startswith(b"II") else ">", 43 in data[2:4])
    if layout.big and layout.order == ">":
        raise not_supported("a big-endian BigTIFF")
    entries, following = _directory(data, layout)
    values = {tag: _values(data, layout, entries[tag]) for tag in set(entries) & set(Tag)}
    tags = {Tag(tag): value for tag, value in values.items()}
    width, height = tags[Tag.WIDTH][0], tags[Tag.HEIGHT][0]
    check_kind(tags, layout.order == ">")
    _check_parts(tags, width, height, len(data), limits)
    kept = _NEEDED - (_STRIPS if Tag.TILE_OFFSETS in tags else _TILES)
    return Still(
        "TIFF",
        width,
        height,
        opener("TIFF", _rewritten(data, layout, [entries[tag] for tag in sorted(entries) if tag in kept])),
        _exif(data, layout, tags),
        following != 0,
    )


def _exif(data: bytes, layout: _Layout, tags: Tags) -> bytes:
    """A classic TIFF is an EXIF block; of a BigTIFF a block with the orientation is made."""
    if not layout.big:
        return data
    (value,) = tags.get(Tag.ORIENTATION, (1,))[:1]
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, Tag.ORIENTATION, 3, 1, value & 0xFFFF, 0, 0)


_Entry = tuple[int, int, int, bytes]


def _directory(data: bytes, layout: _Layout) -> tuple[dict[int, _Entry], int]:
    """The entries of the first directory by tag, and where the next directory is (0: there is none)."""
    (start,) = struct.unpack_from(layout.first[0], data, layout.first[1])
    (count,) = struct.unpack_from(layout.count, data, start)
    if count > MAX_TAGS:
        raise too_much("tags", count, MAX_TAGS)
    start += struct.calcsize(layout.count)
    size = struct.calcsize(layout.entry)
    entries: dict[int, _Entry] = {}
    for index in range(count):
        entry = struct.unpack_from(layout.entry, data, start + index * size)
        entries.setdefault(entry[0], entry)
    try:
        (following,) = struct.unpack_from(layout.place, data, start + count * size)
    except struct.error:
        following = 0
    return entries, following


def _values(data: bytes, layout: _Layout, entry: _Entry) -> tuple[int, ...]:
    """The whole numbers of an entry; none where it holds something else."""
    _, kind, count, value = entry
    length = count * _SIZES[kind]
    if count > 3 * MAX_PARTS:
        raise too_much("values in a tag", count, 3 * MAX_PARTS)
    place = 0
    if length > len(value):
        (place,) = struct.unpack(layout.place, value)
        value = data[place : place + length]
        if len(value) < length:
            raise InvalidImageError("the TIFF image is damaged or cut short")
    if kind not in _TYPES:
        return ()
    return struct.unpack_from(f"{layout.order}{count}{_TYPES[kind]}", value)


def _check_parts(tags: Tags, width: int, height: int, size: int, limits: ImageLimits) -> None:
    """Strips and tiles: as many as the image needs, no larger than the limits, and within the file."""
    samples, apart = tags.get(Tag.SAMPLES, (1,))[0], tags.get(Tag.PLANES, (1,))[0] == 2
    if Tag.TILE_OFFSETS in tags:
        across, down = tags[Tag.TILE_WIDTH][0], tags[Tag.TILE_HEIGHT][0]
        offsets, counts = tags[Tag.TILE_OFFSETS], tags.get(Tag.TILE_BYTES, ())
    else:
        across, down = width, min(tags.get(Tag.ROWS, (height,))[0], height)
        offsets, counts = tags[Tag.STRIP_OFFSETS], tags.get(Tag.STRIP_BYTES, ())
    if not (across and down and width and height):
        raise InvalidImageError("the TIFF image's header is damaged: a size of 0")
    columns, rows = ceil(width / across), ceil(height / down)
    parts = columns * rows * (samples if apart else 1)
    if max(parts, len(offsets)) > MAX_PARTS:
        raise too_much("strips or tiles", max(parts, len(offsets)), MAX_PARTS)
    raw = tags.get(Tag.COMPRESSION, (1,)) == (1,)
    if raw and Tag.TILE_OFFSETS in tags and parts > MAX_RAW_TILES:
        raise too_much("tiles that are not compressed", parts, MAX_RAW_TILES)
    if parts != len(offsets):
        raise InvalidImageError(f"the TIFF image is damaged: {len(offsets)} strips or tiles, not {parts}")
    if across * down * columns * rows > 2 * limits.max_pixels:
        raise ImageTooLargeError(
            f"the TIFF's tiles of {across} x {down} have more than {2 * limits.max_pixels} pixels together",
            "save the image with smaller tiles",
        )
    if raw:
        row = (across * tags.get(Tag.BITS, (1,))[0] * (1 if apart else samples) + 7) // 8
        last = down if Tag.TILE_OFFSETS in tags else height - (rows - 1) * down
        counts = tuple(row * (last if i // columns % rows == rows - 1 else down) for i in range(parts))
    if len(counts) != parts or any(
        start + count > size for start, count in zip(offsets, counts, strict=True)
    ):
        raise InvalidImageError("the TIFF image is cut short")
    if sum(counts) > REREAD * size:
        raise too_much("bytes in its strips", sum(counts), REREAD * size)


def _rewritten(data: bytes, layout: _Layout, entries: list[_Entry]) -> bytes:
    """The file with a new, only directory of ``entries``."""
    code, place = layout.first
    end = len(data) + (len(data) & 1)
    directory = struct.pack(layout.count, len(entries))
    directory += b"".join(struct.pack(layout.entry, *entry) for entry in entries)
    directory += struct.pack(layout.place, 0)
    head = data[:place] + struct.pack(code, end)
    return b"".join((head, data[len(head) :], bytes(end - len(data)), directory))
