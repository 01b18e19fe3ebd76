"""BMP: the kinds that Pillow reads slowly or not at all (run lengths, odd masks) are read here."""

import struct
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.still import Still, not_supported, opener, too_much

MAX_RUNS: Final = 2_000_000
"""Steps of a run-length encoded image, about a second's work."""
_HEADERS: Final = {12, 40, 52, 56, 64, 108, 124}  # OS/2 1, Windows 3, its extensions, OS/2 2, Windows 4 and 5
_RAW, _RLE8, _RLE4, _MASKS, _ALPHA_MASKS = 0, 1, 2, 3, 6
_COMPRESSIONS: Final = {_RAW: (1, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,)} | dict.fromkeys(
    (_MASKS, _ALPHA_MASKS), (16, 24, 32)
)
_PILLOW_MASKS: Final = {  # bits and masks of red, green, blue and alpha that Pillow reads
    (32, 0xFF0000, 0xFF00, 0xFF, 0),
    (32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (24, 0xFF0000, 0xFF00, 0xFF, 0),
    (16, 0xF800, 0x7E0, 0x1F, 0),
    (16, 0x7C00, 0x3E0, 0x1F, 0),
}


@dataclass(frozen=True)
class _Header:
    size: int
    width: int
    height: int
    upwards: bool
    """Whether the first row in the file is the lowest."""
    bits: int
    compression: int
    colors: int
    offset: int
    """Where the pixels begin, bytes."""


def look(data: bytes, limits: ImageLimits) -> Still:
    """Read the header.

    Raises:
        InvalidImageError: the header is damaged, or the kind of BMP is not supported.
    """
    header = _header(data)
    load = opener("BMP", data)
    if header.compression in (_RLE8, _RLE4):
        load = partial(_run_lengths, data, header)
    elif header.compression in (_MASKS, _ALPHA_MASKS):
        masks = _masks(data, header)
        if header.compression == _ALPHA_MASKS or (header.bits, *masks) not in _PILLOW_MASKS:
            load = partial(_masked, data, header, masks)
    return Still("BMP", header.width, header.height, load)


def _header(data: bytes) -> _Header:
    offset, size = struct.unpack_from("<II", data, 10)
    if size not in _HEADERS:
        if 16 <= size <= 128:
            raise not_supported(f"a BMP with a header of {size} bytes")
        raise InvalidImageError("the BMP image's header is damaged")
    compression = colors = 0
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits, compression, _, _, _, colors = struct.unpack_from("<iiHHIIiiI", data, 18)
    if bits not in _COMPRESSIONS.get(compression, ()) or (size == 64 and compression > _RLE4):
        raise not_supported(f"a BMP of {bits} bits a pixel and compression {compression}")
    if width <= 0 or height == 0:
        raise InvalidImageError(f"the BMP image's header is damaged: {width} x {height} pixels")
    if bits <= 8:
        colors = min(colors or 2**bits, 2**bits)
    return _Header(size, width, abs(height), height > 0, bits, compression, colors, offset)


def _masks(data: bytes, header: _Header) -> tuple[int, int, int, int]:
    """The masks of red, green, blue and alpha; the first three follow a short header, or are part of it."""
    red, green, blue, alpha = struct.unpack_from("<IIII", data, 14 + 40)
    return red, green, blue, alpha if header.size >= 56 or header.compression == _ALPHA_MASKS else 0


def _masked(data: bytes, header: _Header, masks: tuple[int, int, int, int]) -> Image.Image:
    """Pixels whose colours are where ``masks`` say, scaled to 8 bits."""
    stride = (header.width * header.bits + 31) // 32 * 4
    packed = np.frombuffer(data, np.uint8, stride * header.height, header.offset).reshape(
        header.height, stride
    )
    pixels = packed[:, : header.width * header.bits // 8].reshape(header.height, header.width, -1)
    mode = "RGBA" if masks[3] else "RGB"
    bands = [Image.fromarray(_scaled(pixels, mask, header.upwards)) for mask in masks[: len(mode)]]
    return Image.merge(mode, bands)


def _scaled(pixels: NDArray[np.uint8], mask: int, upwards: bool) -> NDArray[np.uint8]:
    """One colour of little-endian ``pixels`` [height, width, bytes] as uint8 [height, width]."""
    if not mask:
        return np.zeros(pixels.shape[:2], np.uint8)
    shift = (mask & -mask).bit_length() - 1
    values: NDArray[np.uint32] = np.zeros(pixels.shape[:2], np.uint32)
    for index in range(pixels.shape[2]):
        values |= pixels[..., index].astype(np.uint32) << np.uint32(8 * index)
    levels = (values & np.uint32(mask)) >> np.uint32(shift)
    scaled = (levels * (255.0 / (mask >> shift)) + 0.5).astype(np.uint8)
    return scaled[::-1] if upwards else scaled


def _run_lengths(data: bytes, header: _Header) -> Image.Image:
    """The image of run lengths, which may leave pixels out: they have colour 0."""
    indices = np.frombuffer(_unpack(data, header), np.uint8).reshape(header.height, header.width)
    image = Image.fromarray(indices[::-1] if header.upwards else indices)
    start = 14 + header.size
    entries = np.frombuffer(data, np.uint8, 4 * header.colors, start).reshape(-1, 4)
    image.putpalette(entries[:, 2::-1].tobytes())
    return image


def _unpack(data: bytes, header: _Header) -> bytearray:
    """One byte for each pixel, rows in the order of the file.

    Raises:
        ImageTooLargeError: there are more than `MAX_RUNS` runs.
        IndexError: the data end before the image does.
    """
    half = header.compression == _RLE4
    width, total = header.width, header.width * header.height
    canvas = bytearray(total)
    position, x, row = header.offset, 0, 0
    for _ in range(MAX_RUNS):
        count, value = data[position], data[position + 1]
        position += 2
        if count or value > 2:
            if count:
                pair = bytes((value >> 4, value & 15)) if half else bytes((value, value))
                run = (pair * (count // 2 + 1))[:count]
            else:
                size = (value + 1) // 2 if half else value
                run = data[position : position + size]
                if len(run) < size:
                    raise IndexError
                position += size + (size & 1)
                if half:
                    run = bytes(n for byte in run for n in (byte >> 4, byte & 15))[:value]
            kept = run[: max(0, width - x)] if row < total else b""
            canvas[row + x : row + x + len(kept)] = kept
            x += len(run)
        elif value == 0:
            x, row = 0, row + width
        elif value == 1:
            return canvas
        else:
            x += data[position]
            row += width * data[position + 1]
            position += 2
        if row >= total:
            return canvas
    raise too_much("runs", MAX_RUNS + 1, MAX_RUNS)
