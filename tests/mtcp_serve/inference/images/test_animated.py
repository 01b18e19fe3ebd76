"""GIF and WebP: one image is cut out of however many there are."""

import struct
from io import BytesIO
from time import process_time

import numpy as np
import pytest
from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import decode, measure
from mtcp_serve.inference.images.gif import MAX_BLOCKS
from mtcp_serve.inference.images.webp import MAX_CHUNKS
from tests.mtcp_serve.support import encode, noise

FRAMES = [Image.new("RGB", (16, 12), color) for color in ("red", "lime", "blue")]


def gif(**options: object) -> bytes:
    return encode(FRAMES[0].convert("P"), "GIF", **options)


def body(data: bytes) -> int:
    """Where the extensions and images begin."""
    return 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("transparency", [None, 0])
def test_a_gif_is_what_pillow_sees(interlace: int, transparency: int | None) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    data = encode(Image.fromarray(noise(20, 30)).quantize(), "GIF", interlace=interlace, **options)
    with Image.open(BytesIO(data)) as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
    assert np.array_equal(np.asarray(decode(data).image), np.asarray(white.convert("RGB")))


def test_a_frame_that_sticks_out_makes_a_gif_larger_and_is_measured() -> None:
    data = bytearray(gif())
    data[6:10] = struct.pack("<HH", 8, 8)
    assert measure(bytes(data)) == (16, 12)
    assert decode(bytes(data)).image.size == (16, 12)
    place = data.index(b",", body(bytes(data)))
    data[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageTooLargeError, match="60000 x 60000"):
        decode(bytes(data))


@pytest.mark.parametrize("extension", [b"!\xfe", b"!\xff", b"!\x01"])
def test_extensions_of_countless_blocks_are_refused_soon(extension: bytes) -> None:
    data = gif()
    place = body(data)
    start = process_time()
    with pytest.raises(ImageTooLargeError, match="262,145 blocks"):
        decode(data[:place] + extension + b"\x01x" * (MAX_BLOCKS + 1) + b"\0" + data[place:])
    assert process_time() - start < 5


def test_countless_frames_are_not_looked_at() -> None:
    whole = encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])
    start = process_time()
    image = decode(whole[:-1] + whole[body(whole) : -1] * 40_000 + b";")
    assert process_time() - start < 5
    assert image.info.animated
    webp = encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True)
    frame = webp.index(b"ANMF")
    parts = webp[12:] + webp[frame:] * 10_000
    start = process_time()
    image = decode(b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts)
    assert process_time() - start < 5
    assert image.info.animated
    assert np.asarray(image.image)[0, 0].tolist() == [255, 0, 0]


def test_chunks_of_a_webp_are_counted() -> None:
    parts = encode(FRAMES[0], "WEBP", exif=Image.Exif())[12:] + b"NONE\0\0\0\0" * MAX_CHUNKS
    with pytest.raises(ImageTooLargeError, match="65,537 chunks"):
        decode(b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_what_pillow_sees(mode: str, lossless: bool) -> None:
    pixels = np.dstack([noise(20, 30), noise(20, 30, seed=4)[..., 0]])[..., : len(mode)]
    extras = {"icc_profile": b"\0" * 200, "xmp": b"<x/>", "exif": b"Exif\0\0II*\0"}
    for options in ({}, extras):
        data = encode(Image.fromarray(pixels), "WEBP", lossless=lossless, **options)
        with Image.open(BytesIO(data)) as image:
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image.convert("RGBA"))
        assert np.array_equal(np.asarray(decode(data).image), np.asarray(white.convert("RGB")))


def test_a_webp_without_pixels() -> None:
    data = encode(FRAMES[0], "WEBP", xmp=b"<x/>")
    frame = data.index(b"VP8 ", 13)
    for damaged in (data[:frame] + b"VP8?" + data[frame + 4 :], data[:20], data[:40], data[:-10]):
        with pytest.raises(InvalidImageError):
            decode(damaged)
