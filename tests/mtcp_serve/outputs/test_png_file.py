"""The PNG files that are written here are read alike by Pillow, by FFmpeg, and by the letter."""

import struct
import zlib
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.outputs import png_file
from mtcp_serve.outputs.png_file import write_png

CHANNELS = {"L": 1, "I;16": 1, "RGB": 3, "P": 1, "RGBA": 4}
FFMPEG = {"L": "gray", "I;16": "gray16be", "RGB": "rgb24", "P": "pal8", "RGBA": "rgba"}
PALETTE = [(37 * i + channel * 91) % 256 for i in range(256) for channel in range(3)]
WIDE = (70, 3000)
"""Rows and columns of an image that is filtered in several bands."""


def picture(mode: str, pixels: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(PALETTE)
    assert image.mode == mode
    return image


def noise(mode: str, height: int, width: int) -> NDArray[Any]:
    generator = np.random.default_rng(0)
    shape = (height, width, CHANNELS[mode]) if CHANNELS[mode] > 1 else (height, width)
    most, kind = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
    return generator.integers(0, most, shape).astype(kind)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents, each checked against its sum, and nothing after the last."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + content),)
        found.append((name, content))
        at += length + 12
    assert found[-1] == (b"IEND", b"")
    return found


def by_the_letter(data: bytes, bytes_a_pixel: int) -> NDArray[np.uint8]:
    """The bytes of each row as sections 9.2 and 10 of the specification have them read, filter 2 alone."""
    parts = chunks(data)
    width, height, *_ = struct.unpack(">IIBBBBB", parts[0][1])
    stream = zlib.decompressobj()
    packed = b"".join(content for name, content in parts if name == b"IDAT")
    flat = stream.decompress(packed)
    assert stream.eof
    assert not stream.unused_data
    rows = np.frombuffer(flat, np.uint8).reshape(height, 1 + width * bytes_a_pixel)
    assert set(rows[:, 0]) == {2}
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)


def by_ffmpeg(data: bytes, mode: str) -> NDArray[Any]:
    with av.open(BytesIO(data), mode="r", format="png_pipe") as container:
        frame = next(container.decode(video=0))
        assert frame.format.name == FFMPEG[mode]
        if mode == "P":
            frame = frame.reformat(format="rgb24")
        found: NDArray[Any] = frame.to_ndarray()
    return found


@pytest.mark.parametrize("mode", CHANNELS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), WIDE])
def test_every_reader_finds_the_same_pixels(mode: str, size: tuple[int, int]) -> None:
    pixels = noise(mode, *size)
    data = write_png(picture(mode, pixels))
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels)
        colors = np.asarray(image.convert("RGB")) if mode == "P" else pixels
    wire = pixels.astype(">u2") if mode == "I;16" else pixels
    assert by_the_letter(data, wire.itemsize * CHANNELS[mode]).tobytes() == wire.tobytes()
    assert np.array_equal(by_ffmpeg(data, mode), colors)
    if mode == "P":
        assert np.array_equal(colors, np.array(PALETTE, np.uint8).reshape(256, 3)[pixels])


@settings(max_examples=25)
@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.text(max_size=9))
def test_whatever_the_values_and_words(pixels: NDArray[np.uint16], words: str) -> None:
    words = words.replace("\0", "").encode("utf-8", "ignore").decode()
    data = write_png(Image.fromarray(pixels), {"Title": words})
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.info["Title"] == words


def test_chunks_are_in_the_order_that_the_specification_asks_for() -> None:
    data = write_png(picture("P", noise("P", 2, 2)), {"Title": "semseg", "Source": "größer", "mtcp": "漢"})
    assert [name for name, _ in chunks(data)] == [
        b"IHDR",
        b"PLTE",
        b"tEXt",
        b"tEXt",
        b"iTXt",
        b"IDAT",
        b"IEND",
    ]


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_other_modes_are_written_by_pillow(mode: str) -> None:
    image = picture("L", noise("L", 9, 7)).convert(mode)
    with Image.open(BytesIO(write_png(image, {"Title": "x"}))) as read:
        assert (read.mode, read.info["Title"]) == (mode, "x")
        assert read.tobytes() == image.tobytes()


def test_a_palette_with_transparency_keeps_it() -> None:
    image = picture("P", noise("P", 9, 7))
    image.info["transparency"] = 3
    with Image.open(BytesIO(write_png(image))) as read:
        assert read.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", CHANNELS)
def test_without_isal_the_files_hold_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(mode, noise(mode, *WIDE))
    before = write_png(image)
    monkeypatch.setattr(png_file, "deflate", zlib)
    after = write_png(image)
    assert [name for name, _ in chunks(after)] == [name for name, _ in chunks(before)]
    itemsize = 2 if mode == "I;16" else CHANNELS[mode]
    assert np.array_equal(by_the_letter(after, itemsize), by_the_letter(before, itemsize))


def test_a_smooth_map_is_smaller_than_pillow_makes_it() -> None:
    """Of what a network gives: gradients, edges between them, and a little noise."""
    rows, columns = np.mgrid[0:240, 0:320]
    noisy = np.random.default_rng(0).normal(0, 3, rows.shape)
    depth = (1500 + 8 * rows + 3 * columns + 900 * (columns > 150) + noisy).astype(np.uint16)
    image = Image.fromarray(depth)
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    assert len(write_png(image)) < 1.1 * buffer.getbuffer().nbytes
