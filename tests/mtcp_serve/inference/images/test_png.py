"""PNG: every kind of sample comes out right, and nothing but the pixels can cost an image."""

import struct
import zlib
from time import process_time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import decode
from mtcp_serve.inference.images.png import MAX_CHUNKS
from tests.mtcp_serve.inference.images.build import png, png_chunk
from tests.mtcp_serve.support import encode, noise

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
KINDS = [(GREY, bits) for bits in (1, 2, 4, 8, 16)] + [(PALETTE, bits) for bits in (1, 2, 4, 8)]
KINDS += [(color, bits) for color in (RGB, GREY_ALPHA, RGB_ALPHA) for bits in (8, 16)]
HEAD = 33  # bytes of the signature and the header chunk


def levels(color: int, bits: int) -> NDArray[np.int64]:
    return np.random.default_rng(bits).integers(0, 2**bits, (6, 9, SAMPLES[color]))


@pytest.mark.parametrize(("color", "bits"), KINDS)
def test_every_kind_of_sample(color: int, bits: int) -> None:
    values = levels(color, bits)
    palette = np.random.default_rng(3).integers(0, 256, (2**bits if bits <= 8 else 0, 3), np.uint8)
    found = decode(png(values, bits, color, palette=palette.tobytes() if color == PALETTE else b""))
    shares = values / (2**bits - 1)
    if color == PALETTE:
        truth = palette[values[..., 0]]
    else:
        alpha = shares[..., -1:] if color in (GREY_ALPHA, RGB_ALPHA) else 1.0
        colors = shares[..., :3] if color in (RGB, RGB_ALPHA) else shares[..., :1]
        truth = np.broadcast_to(255 * (colors * alpha + 1 - alpha), (6, 9, 3))
    assert np.abs(np.asarray(found.image) - truth).max() <= 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_level_that_is_transparent(bits: int) -> None:
    values = levels(GREY, bits)
    key = int(values[2, 3, 0])
    found = np.asarray(decode(png(values, bits, GREY, (b"tRNS", struct.pack(">H", key)))).image)
    truth = np.where(values == key, 255, 255 * values / (2**bits - 1))
    assert np.abs(found - truth).max() <= 0.5


def test_a_color_that_is_transparent() -> None:
    values = levels(RGB, 8)
    key = values[1, 2]
    found = np.asarray(decode(png(values, 8, RGB, (b"tRNS", struct.pack(">HHH", *key)))).image)
    truth = values.copy()
    truth[(values == key).all(-1)] = 255
    assert np.array_equal(found, truth)
    with pytest.raises(InvalidImageError, match="not supported: a PNG of 16 bits a colour with"):
        decode(png(levels(RGB, 16), 16, RGB, (b"tRNS", struct.pack(">HHH", 1, 2, 3))))


@pytest.mark.parametrize("compression", [0, 1, 9])
def test_one_damaged_byte_of_the_pixels_is_an_error(compression: int) -> None:
    data = bytearray(encode(noise(60, 60), compress_level=compression))
    decode(bytes(data))
    start = data.index(b"IDAT") + 4
    for place in range(start, len(data) - 16, 501):
        data[place] ^= 0x10
        with pytest.raises(InvalidImageError, match="damaged"):
            decode(bytes(data))
        data[place] ^= 0x10


def test_damage_that_its_checksum_hides_is_an_error() -> None:
    """A whole chunk whose compressed pixels end early or are no such data."""
    header = encode(noise(30, 30))[:HEAD]
    packed = zlib.compress(b"".join(b"\0" + bytes(90) for _ in range(30)))
    for body in (packed[: len(packed) // 2], b"\x78\x9c" + b"\xff" * 40, b"", zlib.compress(b"\0" * 500)):
        with pytest.raises(InvalidImageError):
            decode(header + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000))),
        png_chunk(b"zTXt", b"key\0\0 not compressed"),
        png_chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"x" * 5_000_000)),
        png_chunk(b"tEXt", b"x" * 3_000_000),
        png_chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(50_000_000), 1)),
        png_chunk(b"iCCP", b"name\0\0 not compressed"),
        png_chunk(b"iCCP", b""),
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"gAMA", b""),
        png_chunk(b"eXIf", b"II"),
        png_chunk(b"acTL", b""),
        png_chunk(b"tEXt", b"key\0text")[:-4] + b"\0\0\0\0",
        png_chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff\x12\x01"),
    ],
)
def test_no_chunk_beside_the_pixels_damages_an_image(chunk: bytes) -> None:
    plain = encode(noise(20, 30))
    for data in (plain[:HEAD] + chunk + plain[HEAD:], plain[:-12] + chunk + plain[-12:]):
        assert np.array_equal(np.asarray(decode(data).image), noise(20, 30))


def test_pixels_over_many_chunks() -> None:
    plain = encode(noise(40, 40))
    body = plain[plain.index(b"IDAT") + 4 : -16]
    parts = b"".join(png_chunk(b"IDAT", body[place : place + 7]) for place in range(0, len(body), 7))
    data = plain[:HEAD] + parts + plain[-12:]
    assert np.array_equal(np.asarray(decode(data).image), noise(40, 40))


def test_chunks_are_counted() -> None:
    plain = encode(noise(4, 4))
    start = process_time()
    for kind in (b"tEXt", b"IDAT"):
        with pytest.raises(ImageTooLargeError, match="65,537 chunks"):
            decode(plain[:HEAD] + png_chunk(kind, b"") * (MAX_CHUNKS + 100) + plain[HEAD:])
    assert process_time() - start < 5


def test_pixels_beyond_the_image_are_not_unpacked() -> None:
    """Deflated zeros: 20 GB behind the last row, which would take 20 s."""
    header = encode(Image.new("L", (10, 10)))[:HEAD]
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(4_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(4_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = header + png_chunk(b"IDAT", start + 4000 * again) + png_chunk(b"IEND", b"")
    begin = process_time()
    decode(data)
    assert process_time() - begin < 5


def test_exif_after_the_pixels_counts() -> None:
    block = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = encode(noise(20, 30))
    image = decode(plain[:-12] + png_chunk(b"eXIf", block) + plain[-12:])
    assert np.array_equal(np.asarray(image.image), np.rot90(noise(20, 30), -1))
