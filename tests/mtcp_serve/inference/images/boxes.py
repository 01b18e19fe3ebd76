"""The boxes of AVIF and HEIC files (ISO/IEC 14496-12), changed one by one: the fuzzer's grammar of them.

A file is a row of boxes: 4 bytes of size, 4 of kind, and what is in it, other boxes for some kinds. A change
of a byte breaks a size more often than not, after which decoders look no further; here sizes stay right.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

HEADS = {b"meta": 4, b"iinf": 6, b"iref": 4, b"stsd": 8} | dict.fromkeys(
    (b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf"), 0
)
"""Kinds that hold boxes, and the bytes before the first of them (`iinf` of version 0)."""
ITEMS = (b"hvc1", b"av01", b"grid", b"iden", b"iovl", b"tmap", b"Exif", b"mime", b"jpeg", b"unci", b"mski")
PROPERTIES = (
    (b"irot", b"\x01"),
    (b"irot", b"\xff"),
    (b"imir", b"\x01"),
    (b"clap", struct.pack(">8I", 8, 1, 8, 1, 0, 1, 0, 1)),
    (b"clap", struct.pack(">8I", 2**32 - 1, 0, 1, 2**31, 2**31, 1, 0, 0)),
    (b"pasp", struct.pack(">2I", 2, 1)),
    (b"colr", b"nclx" + struct.pack(">3HB", 9, 16, 0, 128)),
    (b"colr", b"prof" + bytes(132)),
    (b"pixi", b"\0\0\0\0\x03\x0a\x0a\x0a"),
    (b"ispe", struct.pack(">3I", 0, 2**16, 2**16)),
    (b"a1lx", bytes(7)),
    (b"lsel", b"\0\x01"),
    (b"auxC", b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"),
)
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass
class Box:
    """A box: its kind, what comes before its boxes (or all that is in it), and its boxes."""

    kind: bytes
    content: bytes
    boxes: list[Self] = field(default_factory=list)

    def written(self) -> bytes:
        """Its bytes."""
        inside = self.content + b"".join(box.written() for box in self.boxes)
        return struct.pack(">I4s", 8 + len(inside), self.kind) + inside


def parse(data: bytes) -> list[Box]:
    """The boxes of a file, and what comes behind them, of no kind."""
    found, place = [], 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if not 8 <= size <= len(data) - place:
            break
        inside = data[place + 8 : place + size]
        head = HEADS.get(kind)
        if head is None:
            found.append(Box(kind, inside))
        else:
            found.append(Box(kind, inside[:head], parse(inside[head:])))
        place += size
    return [*found, Box(b"", data[place:])] if place < len(data) else found


def written(boxes: list[Box]) -> bytes:
    """The file of these boxes."""
    return b"".join(box.written() if box.kind else box.content for box in boxes)


def change(data: bytes, most: int, seed: int, mutate: Callable[[bytes, int], bytes]) -> bytes:
    """``data`` with a box added, taken out, doubled, moved, of another kind, or of other bytes."""
    chance = random.Random(seed)
    boxes = parse(data)
    row, place = chance.choice(list(_places(boxes)) or [(boxes, 0)])
    if not row:
        return mutate(data, most)
    box = row[place]
    match chance.randrange(10):
        case 0:
            del row[place]
        case 1:
            row.insert(chance.randrange(len(row) + 1), box)
        case 2:
            row[place], other = row[chance.randrange(len(row))], row[place]
            row[row.index(row[place])] = other
        case 3:
            properties = next((row for row, at in _places(boxes) if row[at].kind == b"ispe"), row)
            properties.insert(chance.randrange(len(properties) + 1), Box(*chance.choice(PROPERTIES)))
        case 4 if box.kind == b"infe" and len(box.content) >= 12:
            box.content = box.content[:8] + chance.choice(ITEMS) + box.content[12:]
        case 5 | 6 if box.content:
            number = struct.pack(">I", chance.choice(NUMBERS))[-chance.choice((1, 2, 4)) :]
            at = chance.randrange(len(box.content))
            box.content = (box.content[:at] + number + box.content[at + len(number) :])[: len(box.content)]
        case _:
            box.content = mutate(box.content, max(len(box.content) + 16, 64))
    changed = written(boxes)
    return changed if len(changed) <= most else data


def _places(row: list[Box]) -> Iterator[tuple[list[Box], int]]:
    for place, box in enumerate(row):
        yield row, place
        yield from _places(box.boxes)


def pixels_first(data: bytes) -> bytes:
    """The same image with its pixels before all that says where they are, which then may grow."""
    boxes = parse(data)
    at = sum(len(box.written()) for box in boxes if box.kind in (b"ftyp", b"meta"))
    ((begin, size),) = _extents(boxes)
    ftyp, meta, mdat = (_one(boxes, kind) for kind in (b"ftyp", b"meta", b"mdat"))
    _one(meta.boxes, b"iloc").content = _iloc([(1, 0, begin - at + len(ftyp.written()), size)])
    return written([ftyp, mdat, meta])


def grid(data: bytes, width: int, height: int) -> bytes:
    """An image of ``width`` x ``height`` whose two tiles, side by side, are that of ``data`` twice."""
    boxes = parse(pixels_first(data))
    meta = _one(boxes, b"meta")
    ((begin, size),) = _extents(boxes)
    items, properties = _one(meta.boxes, b"iinf"), _one(meta.boxes, b"iprp")
    first = items.boxes[0].content
    kinds = (first[8:12], first[8:12], b"grid")
    items.content = b"\0\0\0\0\0\x03"
    items.boxes = [
        Box(b"infe", first[:3] + bytes([number < 3]) + struct.pack(">HH", number, 0) + kind + b"\0")
        for number, kind in enumerate(kinds, 1)
    ]
    _one(meta.boxes, b"pitm").content = b"\0\0\0\0\0\x03"
    layout = struct.pack(">4B2H", 0, 0, 0, 1, width, height)
    places = [(1, 0, begin, size), (2, 0, begin, size), (3, 1, 0, len(layout))]
    _one(meta.boxes, b"iloc").content = _iloc(places)
    references = Box(b"dimg", struct.pack(">4H", 3, 2, 1, 2))
    meta.boxes += [Box(b"iref", b"\0\0\0\0", [references]), Box(b"idat", layout)]
    shared = _one(properties.boxes, b"ipco").boxes
    shared.append(Box(b"ispe", struct.pack(">3I", 0, width, height)))
    said = _one(properties.boxes, b"ipma").content
    tile = said[10 : 11 + said[10]]
    own = bytes((1, len(shared)))
    said = b"\0\0\0\0" + struct.pack(">I", 3)
    for number, which in ((1, tile), (2, tile), (3, own)):
        said += struct.pack(">H", number) + which
    _one(properties.boxes, b"ipma").content = said
    return written(boxes)


def _one(boxes: list[Box], kind: bytes) -> Box:
    (found,) = (box for box in boxes if box.kind == kind)
    return found


def _extents(boxes: list[Box]) -> list[tuple[int, int]]:
    """Place and size of each item, which has one part (`iloc` of version 0 or 1)."""
    content = _one(_one(boxes, b"meta").boxes, b"iloc").content
    version, base_size = content[0], content[5] >> 4
    assert content[4] == 0x44
    found, place = [], 8
    for _ in range(int.from_bytes(content[6:8], "big")):
        place += 4 + 2 * version
        base = int.from_bytes(content[place : place + base_size], "big")
        begin, size = struct.unpack_from(">2I", content, place + base_size + 2)
        found.append((base + begin, size))
        place += base_size + 10
    return found


def _iloc(items: list[tuple[int, int, int, int]]) -> bytes:
    """Items as number, construction method, place and size."""
    parts = [struct.pack(">4H2I", number, method, 0, 1, begin, size) for number, method, begin, size in items]
    return b"\x01\0\0\0\x44\0" + struct.pack(">H", len(items)) + b"".join(parts)
