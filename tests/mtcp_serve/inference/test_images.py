"""Untrusted bytes: odd images come out right, broken and oversized ones are refused by name."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtcp_serve.errors import (
    EmptyImageError,
    ImageTooLargeError,
    InvalidImageError,
    PayloadTooLargeError,
    RequestError,
)
from mtcp_serve.inference.images import FORMATS, DecodedImage, ImageLimits, decode, read
from tests.mtcp_serve.inference.images.build import png_header
from tests.mtcp_serve.support import encode, noise

LIMITS = ImageLimits(max_bytes=2_000_000, max_pixels=1_000_000, max_side=1500)


def pixels(photo: DecodedImage) -> Any:
    return np.asarray(photo.image).astype(int)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_every_listed_format_is_read(format: str) -> None:
    image = Image.fromarray(np.full((9, 12, 3), (200, 40, 90), np.uint8))
    photo = decode(encode(image, format), LIMITS)
    assert photo.info.format == format
    assert (photo.info.width, photo.info.height) == (12, 9)
    assert np.abs(pixels(photo) - (200, 40, 90)).max() <= 5
    assert format in FORMATS


def test_lossless_image_is_exact() -> None:
    source = noise(17, 23)
    photo = decode(encode(source), LIMITS)
    assert np.array_equal(pixels(photo), source)
    assert photo.image.mode == "RGB"


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr", "PA"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(0, 256, 16, dtype=np.uint8), (4, 1)))
    if mode in ("I;16", "I", "F"):
        wide = np.asarray(grey).astype(np.uint16) * 257
        image = Image.fromarray(wide) if mode == "I;16" else Image.fromarray(wide).convert("I").convert(mode)
        expected = np.asarray(grey).astype(int)
        if mode != "I;16":
            expected = np.rint(expected * 255 / 240)
    else:
        image = grey.convert("RGB").convert({"PA": "RGBA"}.get(mode, mode))
        expected = np.asarray(image.convert("RGB"))[..., 0].astype(int)
    photo = decode(encode(image, "TIFF" if mode in ("CMYK", "I", "F", "YCbCr") else "PNG"), LIMITS)
    assert photo.image.mode == "RGB"
    assert np.abs(pixels(photo)[..., 0] - expected).max() <= 1


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    wide = np.array([[0, 128, 257, 32768, 65535, 300]], np.uint16)
    photo = decode(encode(Image.fromarray(wide)), LIMITS)
    assert photo.info.mode.startswith("I;16")
    assert pixels(photo)[0, :, 0].tolist() == [0, 0, 1, 128, 255, 1]


def test_constant_float_image_does_not_divide_by_zero() -> None:
    photo = decode(encode(Image.fromarray(np.full((3, 3), 7.5, np.float32)), "TIFF"), LIMITS)
    assert pixels(photo).max() == 0


def test_alpha_lies_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    assert pixels(decode(encode(Image.fromarray(rgba)), LIMITS))[0, :, 0].tolist() == [255, 127, 0]


def test_palette_with_alpha() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    photo = decode(encode(image, transparency=b"\x00\xff"), LIMITS)
    assert photo.info.mode == "P"
    assert pixels(photo)[0].tolist() == [[255, 255, 255], [200, 100, 50]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    upright = np.zeros((40, 80, 3), np.uint8)
    upright[:20, :40] = 250  # bright top left quarter
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode(encode(stored, format, exif=exif), LIMITS)
    assert photo.info.exif_rotated == (orientation > 1)
    assert (photo.info.width, photo.info.height) == (80, 40)
    assert np.abs(pixels(photo) - upright).mean() < 5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_does_not_cost_the_image() -> None:
    photo = decode(encode(noise(8, 8), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"), LIMITS)
    assert not photo.info.exif_rotated


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animated_image_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    photo = decode(encode(frames[0], format, save_all=True, append_images=frames[1:]), LIMITS)
    assert photo.info.animated
    assert np.abs(pixels(photo) - (255, 0, 0)).max() <= 5


def test_a_second_picture_inside_a_jpeg_is_no_animation() -> None:
    first, second = Image.fromarray(noise(8, 8)), Image.fromarray(noise(8, 8, seed=1))
    photo = decode(encode(first, "MPO", save_all=True, append_images=[second]), LIMITS)
    assert (photo.info.format, photo.info.animated) == ("JPEG", False)


def test_large_jpeg_is_decoded_smaller_but_described_in_full() -> None:
    smooth = Image.fromarray(noise(10, 14)).resize((1400, 700), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(smooth, "JPEG", quality=95, exif=exif)
    full, small = decode(data, LIMITS), decode(data, LIMITS, enough=170)
    assert small.info == full.info
    assert (small.info.width, small.info.height) == (700, 1400)
    assert small.image.size == (175, 350)
    assert np.abs(full.resized(60, 30).astype(int) - small.resized(60, 30)).mean() < 2


def test_resizing_stretches_and_averages() -> None:
    chequers = np.indices((64, 64)).sum(0) % 2 * 255
    photo = decode(encode(np.repeat(chequers[..., None], 3, axis=2).astype(np.uint8)), LIMITS)
    small = photo.resized(4, 8)
    assert small.shape == (4, 8, 3)
    assert np.abs(small.astype(int) - 127).max() <= 2
    assert np.array_equal(photo.resized(64, 64), pixels(photo))


def test_no_bytes() -> None:
    with pytest.raises(EmptyImageError):
        decode(b"", LIMITS)


def test_too_many_bytes() -> None:
    with pytest.raises(PayloadTooLargeError, match="2000001 bytes, the limit is 2000000"):
        decode(b"x" * 2_000_001, LIMITS)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (50_000, 50_000, "50000 x 50000 = 2500000000 pixels, the limit is 1000000"),
        (1400, 1400, "1400 x 1400 = 1960000 pixels, the limit is 1000000"),
        (1501, 2, "the limit of a side is 1500"),
        (2, 1501, "the limit of a side is 1500"),
    ],
)
def test_announced_size_is_refused_before_decoding(width: int, height: int, message: str) -> None:
    with pytest.raises(ImageTooLargeError, match=message):
        decode(png_header(width, height), LIMITS)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<svg/>", b"%PDF-1.7", b"\x00" * 5000],
)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(InvalidImageError):
        decode(data, LIMITS)


def test_formats_that_are_not_listed_are_refused() -> None:
    buffer = BytesIO()
    Image.fromarray(noise(8, 8)).save(buffer, "PPM")
    with pytest.raises(InvalidImageError, match="not an image in a format"):
        decode(buffer.getvalue(), LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file(format: str, share: float) -> None:
    whole = encode(noise(64, 64), format)
    with pytest.raises(InvalidImageError):
        decode(whole[: int(len(whole) * share)], LIMITS)


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_damaged_files_raise_nothing_else(junk: bytes, format: str, data: st.DataObject) -> None:
    whole = bytearray(encode(noise(12, 12), format))
    start = data.draw(st.integers(0, len(whole)))
    whole[start : start + len(junk)] = junk
    try:
        photo = decode(bytes(whole), LIMITS)
    except RequestError:
        return
    assert photo.image.mode == "RGB"


@pytest.mark.parametrize("place", ["reader.to_rgb", "png.zlib.crc32"])
def test_too_little_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"mtcp_serve.inference.images.{place}", fail)
    with pytest.raises(MemoryError):
        decode(encode(noise(8, 8)), LIMITS)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(noise(8, 8)))
    assert np.array_equal(np.asarray(read(path).image), noise(8, 8))
    with pytest.raises(PayloadTooLargeError, match=r"the image has \d+ bytes, the limit is 100"):
        read(path, ImageLimits(max_bytes=100))
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.png")


def test_limits_beyond_pillows_own_do_not_blame_the_image() -> None:
    limits = ImageLimits(max_pixels=10**9, max_side=10**5)
    with pytest.raises(ImageTooLargeError, match="20000 x 10000 pixels, Pillow's limit is 178956970"):
        decode(png_header(20_000, 10_000), limits)
