"""BMP: every valid kind is read right, or refused as not supported."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import decode
from mtcp_serve.inference.images.bmp import MAX_RUNS
from tests.mtcp_serve.inference.images.build import bmp, pack
from tests.mtcp_serve.support import noise

HEIGHT, WIDTH = 5, 7
RLE8, RLE4, MASKS, ALPHA_MASKS = 1, 2, 3, 6


def lines(rows: NDArray[np.generic]) -> bytes:
    """Rows from the bottom, each to whole 4 bytes."""
    flat = [row.tobytes() for row in rows[::-1]]
    return b"".join(row + bytes(-len(row) % 4) for row in flat)


def palette(bits: int) -> NDArray[np.uint8]:
    return np.random.default_rng(bits).integers(0, 256, (2**bits, 4), np.uint8)


def shown(data: bytes) -> NDArray[np.int64]:
    return np.asarray(decode(data).image).astype(np.int64)


@pytest.mark.parametrize("header", [40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int, header: int) -> None:
    levels = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH))
    colors = palette(bits)
    data = bmp(WIDTH, HEIGHT, bits, 0, lines(pack(levels, bits)), palette=colors.tobytes(), header=header)
    assert np.array_equal(shown(data), colors[levels][..., 2::-1])


def test_from_the_top() -> None:
    pixels = noise(HEIGHT, WIDTH)
    assert np.array_equal(shown(bmp(WIDTH, HEIGHT, 24, 0, lines(pixels[..., ::-1]))), pixels)
    assert np.array_equal(shown(bmp(WIDTH, -HEIGHT, 24, 0, lines(pixels[::-1, :, ::-1]))), pixels)


def test_os2() -> None:
    pixels = noise(HEIGHT, WIDTH)
    body = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24) + lines(pixels[..., ::-1])
    assert np.array_equal(shown(b"BM" + struct.pack("<IHHI", 26 + len(body), 0, 0, 26) + body), pixels)


@pytest.mark.parametrize("upwards", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0x7C00, 0x3E0, 0x1F)),
        (16, (0xF, 0xF0, 0xF00)),
        (16, (0xE000, 0x1F00, 0xFF)),
        (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
        (24, (0xFF0000, 0xFF00, 0xFF)),
        (24, (0xFF, 0xFF00, 0xFF0000)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        (32, (0xFF, 0, 0)),
    ],
)
def test_masks(bits: int, masks: Sequence[int], upwards: bool) -> None:
    values = np.random.default_rng(1).integers(0, 2**bits, (HEIGHT, WIDTH), np.uint64)
    packed = values.astype("<u4").view(np.uint8).reshape(HEIGHT, WIDTH, 4)[..., : bits // 8]
    channels = [
        ((values & mask) >> (mask & -mask).bit_length() - 1) / (mask // (mask & -mask))
        if mask
        else 0 * values
        for mask in masks
    ]
    rgb = np.stack(channels[:3], axis=-1)
    alpha = channels[3][..., None] if len(masks) == 4 else 1.0
    for header, compression in ((56, MASKS), (124, MASKS), (40, ALPHA_MASKS if len(masks) == 4 else MASKS)):
        rows = lines(packed if upwards else packed[::-1])
        data = bmp(WIDTH, HEIGHT if upwards else -HEIGHT, bits, compression, rows, masks, header=header)
        assert np.abs(shown(data) - 255 * (rgb * alpha + 1 - alpha)).max() <= 1.01


RLE8_RUNS = bytes((3, 5, 4, 6, 0, 0, 0, 3, 1, 2, 3, 0, 2, 9, 0, 2, 1, 1, 5, 7, 0, 1))
RLE8_SHOWN = [[5, 5, 5, 6, 6, 6, 6], [1, 2, 3, 9, 9, 0, 0], [0, 0, 0, 0, 0, 0, 7], [0] * 7, [0] * 7]
RLE4_RUNS = bytes((5, 0x12, 0, 0, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0, 9, 0x88, 0, 1))
RLE4_SHOWN = [[1, 2, 1, 2, 1, 0, 0], [3, 4, 5, 6, 7, 0, 0], [8] * 7, [0] * 7, [0] * 7]


@pytest.mark.parametrize(
    ("compression", "bits", "runs", "indices"),
    [(RLE8, 8, RLE8_RUNS, RLE8_SHOWN), (RLE4, 4, RLE4_RUNS, RLE4_SHOWN)],
)
def test_run_lengths(compression: int, bits: int, runs: bytes, indices: list[list[int]]) -> None:
    """Runs, literal pixels, ends of lines, jumps, runs over the edge, and an end before the image's."""
    colors = palette(bits)
    data = bmp(WIDTH, HEIGHT, bits, compression, runs, palette=colors.tobytes())
    assert np.array_equal(shown(data), colors[np.array(indices[::-1])][..., 2::-1])
    for cut in (1, 2, 8):
        with pytest.raises(InvalidImageError, match="damaged or cut short"):
            decode(data[:-cut])


def test_runs_are_counted() -> None:
    data = bmp(WIDTH, HEIGHT, 8, RLE8, b"\0\2\0\0" * (MAX_RUNS + 1), palette=palette(8).tobytes())
    with pytest.raises(ImageTooLargeError, match="2,000,001 runs"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bmp(2, 2, 2, 0, bytes(8), palette=bytes(16)), "2 bits a pixel and compression 0"),
        (bmp(2, 2, 0, 4, bytes(8)), "0 bits a pixel and compression 4"),
        (bmp(2, 2, 0, 5, bytes(8)), "0 bits a pixel and compression 5"),
        (bmp(2, 2, 24, 4, bytes(16), header=64), "24 bits a pixel and compression 4"),
        (bmp(2, 2, 1, 3, bytes(8), header=64), "1 bits a pixel and compression 3"),
        (bmp(2, 2, 64, 0, bytes(32)), "64 bits a pixel"),
        (bmp(2, 2, 24, 0, bytes(16), header=68), "a header of 68 bytes"),
    ],
)
def test_what_is_not_supported_is_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidImageError, match=f"^not supported: .*{message}"):
        decode(data)


def test_damaged_headers() -> None:
    good = bmp(2, 2, 24, 0, bytes(16))
    for place, value in ((18, 0), (22, 0), (18, -5), (14, 7)):
        damaged = bytearray(good)
        damaged[place : place + 4] = struct.pack("<i", value)
        with pytest.raises(InvalidImageError, match="damaged"):
            decode(bytes(damaged))
