"""JPEG: the work of its scans and segments is known before it is done."""

import struct
from io import BytesIO
from time import process_time

import numpy as np
import pytest
from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import ImageLimits, decode, jpeg, measure
from tests.mtcp_serve.inference.images.build import many_scans, segment
from tests.mtcp_serve.support import encode, noise

SMOOTH = Image.fromarray(noise(10, 14)).resize((280, 200), Image.Resampling.BICUBIC)


def after_head(data: bytes, *inserted: bytes) -> bytes:
    """``inserted`` behind the start-of-image marker."""
    return data[:2] + b"".join(inserted) + data[2:]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_what_is_cut_away_changes_no_pixel(mode: str, options: dict[str, object]) -> None:
    data = encode(SMOOTH.convert(mode), "JPEG", quality=90, comment=b"text", **options)
    with Image.open(BytesIO(data)) as image:
        assert np.array_equal(np.asarray(decode(data).image), np.asarray(image.convert("RGB")))


def test_scans_are_counted_before_decoding() -> None:
    few = many_scans(64, 64, jpeg.MAX_SCANS - 1)
    assert decode(few).image.size == (64, 64)
    with pytest.raises(ImageTooLargeError, match="501 scans, the limit is 500"):
        decode(many_scans(64, 64, jpeg.MAX_SCANS))


def test_blocks_that_scans_visit_are_counted() -> None:
    """400 scans of a large image are more work than a hundred passes over the largest."""
    limits = ImageLimits(max_pixels=2_000_000)
    data = many_scans(1400, 1400, 400)
    assert len(data) < 30_000
    with pytest.raises(ImageTooLargeError, match="blocks of pixels in its scans"):
        decode(data, limits)
    with pytest.raises(ImageTooLargeError, match="blocks of pixels in its scans"):
        decode(data, limits, enough=64)
    with pytest.raises(ImageTooLargeError, match="blocks of pixels in its scans"):
        measure(data, limits)


def test_the_worst_that_is_let_in_takes_seconds_not_minutes() -> None:
    start = process_time()
    decode(many_scans(2048, 2048, 90), ImageLimits(max_pixels=2**22))  # an eighth of the default limits
    assert process_time() - start < 5


def test_memory_for_coefficients_is_bounded() -> None:
    large = Image.new("RGB", (2000, 2000), "red")
    limits = ImageLimits(max_pixels=1_200_000)
    assert decode(encode(large, "JPEG"), limits, enough=500).image.size == (500, 500)
    with pytest.raises(ImageTooLargeError, match="in several scans, which takes 24,"):
        decode(encode(large, "JPEG", progressive=True, subsampling=0), limits, enough=500)


@pytest.mark.parametrize(
    "inserted",
    [
        [segment(0xFE, b"")] * (jpeg.MAX_SEGMENTS + 1),
        [segment(0xE5, b"x")] * (jpeg.MAX_SEGMENTS + 1),
        [segment(0xDD, b"\0\0")] * (jpeg.MAX_SEGMENTS + 1),
    ],
    ids=["comments", "application", "restart intervals"],
)
def test_segments_are_counted(inserted: list[bytes]) -> None:
    with pytest.raises(ImageTooLargeError, match="segments, the limit is"):
        decode(after_head(encode(SMOOTH, "JPEG"), *inserted))


def test_fill_and_junk_between_segments_cost_nothing() -> None:
    plain = encode(SMOOTH, "JPEG")
    start = process_time()
    filled = decode(after_head(plain, b"\xff" * 2_000_000, b"\0" * 2_000_000))
    assert process_time() - start < 2
    assert np.array_equal(np.asarray(filled.image), np.asarray(decode(plain).image))


def test_a_thumbnail_inside_counts_for_nothing() -> None:
    thumbnail = many_scans(8, 8, 600)
    data = after_head(encode(SMOOTH, "JPEG"), segment(0xE1, b"Exif\0\0" + thumbnail[:60_000]))
    assert decode(data).image.size == SMOOTH.size


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"marker": 0xC3}, "a lossless or hierarchical JPEG"),
        ({"marker": 0xC5}, "a lossless or hierarchical JPEG"),
        ({"bits": 12}, "a JPEG of 12 bits a sample"),
        ({"count": 2}, "a JPEG of 2 colours"),
    ],
)
def test_what_is_not_supported_is_named(changed: dict[str, int], message: str) -> None:
    data = bytearray(encode(SMOOTH, "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 1] = changed.get("marker", 0xC0)
    data[place + 4] = changed.get("bits", 8)
    data[place + 9] = changed.get("count", 3)
    with pytest.raises(InvalidImageError, match=f"not supported: {message}"):
        decode(bytes(data))


def test_damaged_markers() -> None:
    data = encode(SMOOTH, "JPEG")
    frame = data.index(b"\xff\xc0")
    scan = data.index(b"\xff\xda")
    for damaged in (
        data[:frame] + data[scan:],  # pixels without a size
        data[:scan] + b"\xff\xd9",
        data[: frame + 2] + struct.pack(">H", 5) + data[frame + 4 :],
        data[: frame + 11] + b"\x00" + data[frame + 12 :],  # a sampling of 0
        data[: scan + 5] + b"\x07" + data[scan + 6 :],  # a scan of a component that is not there
    ):
        with pytest.raises(InvalidImageError):
            decode(damaged)


def test_48_megapixels_fit_the_default_limits_at_reduced_size() -> None:
    data = encode(Image.new("RGB", (8064, 6048), (10, 120, 200)), "JPEG")
    image = decode(data, enough=1024)
    assert image.image.size == (2016, 1512)
    assert (image.info.width, image.info.height) == (8064, 6048)
    with pytest.raises(ImageTooLargeError, match="48771072 pixels, the limit is 33554432") as caught:
        decode(data)
    assert caught.value.hint.startswith("ask for size=model")
