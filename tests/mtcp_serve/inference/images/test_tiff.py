"""Every kind of TIFF is read as another reader reads it, or refused as not supported."""

import itertools
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InvalidImageError
from mtcp_serve.inference.images import ImageLimits, decode
from tests.mtcp_serve.inference.images.build import pack, tiff
from tests.mtcp_serve.support import encode, noise

HEIGHT, WIDTH = 5, 7
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")
KINDS: dict[
    str, list[tuple[int, str | None]]
] = {  # photometric -> samples, and what the sample beyond the colours is
    "minisblack": [(1, None), (2, "unspecified"), (2, "assocalpha"), (2, "unassalpha")],
    "miniswhite": [(1, None)],
    "rgb": [(3, None), (4, "unspecified"), (4, "assocalpha"), (4, "unassalpha")],
    "separated": [(4, None)],
    "palette": [(1, None)],
    "cielab": [(3, None)],
    "ycbcr": [(3, None)],
}
READ = {
    ("minisblack", None): {"u1", "u2", "i2", "i4", "f4"},
    ("minisblack", "unspecified"): {"u1"},
    ("minisblack", "assocalpha"): {"u1"},
    ("minisblack", "unassalpha"): {"u1"},
    ("miniswhite", None): {"u1"},
    ("rgb", None): {"u1", "u2"},
    ("rgb", "unspecified"): {"u1", "u2"},
    ("rgb", "assocalpha"): {"u1", "u2"},
    ("rgb", "unassalpha"): {"u1", "u2"},
    ("separated", None): {"u1", "u2"},
    ("palette", None): {"u1"},
    ("cielab", None): set(),
    ("ycbcr", None): {"u1"},
}
"""What is read at least in one byte order, arrangement and compression."""


@pytest.mark.parametrize(("photometric", "extra"), READ)
def test_every_kind_agrees_with_another_reader_or_is_refused(photometric: str, extra: str | None) -> None:
    read = set()
    for kind, data, (samples, palette) in _written(photometric, extra):
        try:
            found = np.asarray(decode(data).image).astype(float)
        except InvalidImageError as error:
            if not error.message.startswith("not supported: "):
                raise AssertionError(kind) from error
            continue
        truth = _rgb(np.asarray(tifffile.imread(BytesIO(data))), photometric, extra, samples, palette)
        assert np.abs(found - truth).max() <= 3, kind
        read.add(kind[0])
    assert read == READ[photometric, extra]


def _written(
    photometric: str, extra: str | None
) -> Iterator[tuple[tuple[str, ...], bytes, tuple[int, NDArray[np.uint16]]]]:
    """Each kind's name and file, and its samples a pixel and palette."""
    rng = np.random.default_rng(7)
    samples = next(number for number, beyond in KINDS[photometric] if beyond == extra)
    palette = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    for order, name, planes, packing, tile in itertools.product(
        "<>", TYPES, ("contig", "separate"), ("raw", "zlib", "predicted"), (None, (16, 16))
    ):
        dtype = np.dtype(order + name)
        if (samples == 1 and planes == "separate") or (photometric == "palette" and name != "u1"):
            continue
        if packing == "predicted" and dtype.kind == "f":
            continue  # which tifffile cannot write without imagecodecs
        if dtype.kind == "f":
            values = rng.random((HEIGHT, WIDTH, samples)).astype(dtype)
        else:
            ends = np.iinfo(dtype)
            values = rng.integers(ends.min, ends.max, (HEIGHT, WIDTH, samples), endpoint=True).astype(dtype)
        if extra == "assocalpha":
            values = np.sort(values, axis=-1)  # no colour is above its alpha
        if samples == 1:
            values = values[..., 0]
        elif planes == "separate":
            values = np.moveaxis(values, -1, 0)
        buffer = BytesIO()
        tifffile.imwrite(
            buffer,
            values,
            byteorder="<" if order == "<" else ">",
            photometric=photometric,
            planarconfig=planes if samples > 1 else None,
            extrasamples=None if extra is None else [extra],
            compression=None if packing == "raw" else "zlib",
            predictor=packing == "predicted",
            tile=tile,
            colormap=palette if photometric == "palette" else None,
        )
        yield (name, order, planes, packing, str(tile)), buffer.getvalue(), (samples, palette)


def _rgb(
    values: NDArray[Any],
    photometric: str,
    extra: str | None,
    samples: int,
    palette: NDArray[np.uint16],
) -> NDArray[np.float64]:
    """RGB, 0 to 255, of what the other reader gave."""
    if values.ndim == 2:
        values = values[..., None]
    elif values.shape[0] == samples and values.shape[-1] != samples:
        values = np.moveaxis(values, 0, -1)
    if photometric == "palette":
        return np.asarray(palette.T[values[..., 0].astype(int)] // 256, np.float64)
    shares = values.astype(np.float64)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        shares /= np.iinfo(values.dtype).max
    else:
        shares = (shares - shares.min()) / (shares.max() - shares.min())
    if photometric == "miniswhite":
        shares = 1 - shares
    if photometric == "ycbcr":
        y, blue, red = np.moveaxis(values.astype(np.float64) - (0, 128, 128), -1, 0)
        colors = np.stack((y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue), axis=-1)
        return np.asarray(colors.clip(0, 255))
    if photometric == "separated":
        return 255 * (1 - shares[..., :3]) * (1 - shares[..., 3:])
    colors = shares[..., :3] if photometric == "rgb" else shares[..., :1]
    if extra in ("assocalpha", "unassalpha"):
        alpha = shares[..., -1:]
        colors = (colors if extra == "assocalpha" else colors * alpha) + 1 - alpha
    return np.broadcast_to(255 * colors, (HEIGHT, WIDTH, 3))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("photometric", [0, 1, 3])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("reversed_bits", [False, True])
def test_bits_below_a_byte(
    order: str, deflated: bool, photometric: int, bits: int, reversed_bits: bool
) -> None:
    levels = np.random.default_rng(1).integers(0, 2**bits, (HEIGHT, WIDTH))
    palette = np.random.default_rng(2).integers(0, 65536, (3, 2**bits))
    packed = pack(levels, bits)
    if reversed_bits:
        packed = np.packbits(np.unpackbits(packed[..., None], axis=-1)[..., ::-1], axis=-1)[..., 0]
    strip = packed.tobytes()
    fields: dict[int, tuple[int, ...]] = {
        256: (WIDTH,),
        257: (HEIGHT,),
        258: (bits,),
        259: (8 if deflated else 1,),
        262: (photometric,),
    }
    fields |= {266: (2 if reversed_bits else 1,), 277: (1,), 278: (HEIGHT,)}
    if photometric == 3:
        fields[320] = tuple(int(level) for level in palette.ravel())
    data = tiff(fields, [zlib.compress(strip) if deflated else strip], order)
    unread = reversed_bits and (bits > 1 or deflated or photometric == 3)
    if unread or (deflated and (photometric, bits) == (3, 1)):
        with pytest.raises(
            InvalidImageError, match=r"^not supported: a (TIFF with reversed|compressed TIFF)"
        ):
            decode(data)
        return
    shares = levels / (2**bits - 1)
    grey = 255 * (1 - shares if photometric == 0 else shares)
    truth = palette.T[levels] // 256 if photometric == 3 else np.stack([grey] * 3, axis=-1)
    assert np.abs(np.asarray(decode(data).image) - truth).max() <= 0.5


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_strips_orientation_and_both_layouts(order: str, big: bool) -> None:
    pixels = noise(6, 4)
    fields = {256: (4,), 257: (6,), 258: (8,), 259: (1,), 262: (2,), 274: (6,), 277: (3,), 278: (2,)}
    data = tiff(fields, [pixels[row : row + 2].tobytes() for row in (0, 2, 4)], order, big)
    if (order, big) == (">", True):
        with pytest.raises(InvalidImageError, match="not supported: a big-endian BigTIFF"):
            decode(data)
        return
    image = decode(data)
    assert image.info.exif_rotated
    assert (image.info.width, image.info.height) == (6, 4)
    assert np.array_equal(np.asarray(image.image), np.rot90(pixels, -1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "group3", "group4", "lzma", "zstd"])
def test_other_compressions_are_exact(compression: str) -> None:
    image = Image.fromarray(noise(20, 30))
    if compression.startswith("group"):
        image = image.convert("1")
    found = decode(encode(image, "TIFF", compression=compression))
    assert np.array_equal(np.asarray(found.image), np.asarray(image.convert("RGB")))


def test_jpeg_inside() -> None:
    smooth = Image.fromarray(noise(4, 5)).resize((80, 64), Image.Resampling.BICUBIC)
    for image in (smooth, smooth.convert("YCbCr"), smooth.convert("L")):
        found = decode(encode(image, "TIFF", compression="jpeg", quality=95))
        assert np.abs(np.asarray(found.image).astype(int) - np.asarray(image.convert("RGB"))).mean() < 4


def test_raw_ycbcr_is_read_whole_and_refused_subsampled() -> None:
    image = Image.fromarray(noise(8, 8)).convert("YCbCr")
    found = decode(encode(image, "TIFF"))
    assert np.array_equal(np.asarray(found.image), np.asarray(image.convert("RGB")))
    fields = {256: (2,), 257: (2,), 258: (8, 8, 8), 259: (1,), 262: (6,), 277: (3,), 278: (2,), 530: (2, 2)}
    with pytest.raises(InvalidImageError, match="not supported: a TIFF of YCbCr"):
        decode(tiff(fields, [bytes(12)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({259: (50001,)}, "compressed by WebP"),
        ({259: (34712,)}, "compressed by JPEG 2000"),
        ({259: (6,)}, "compressed by old-style JPEG"),
        ({259: (77,)}, "compressed by method 77"),
        ({262: (32803,)}, "photometric interpretation 32803"),
        ({258: (8, 8, 4)}, "samples differ in their bits"),
        ({258: (64,), 339: (3,)}, "64 bits, sample format 3"),
        ({258: (12,)}, "12 bits"),
        ({277: (2,)}, "2 samples a pixel"),
        ({277: (2**32 - 1,)}, "4294967295 samples a pixel"),
        ({277: (5,), 338: (1, 2)}, "5 samples a pixel"),
    ],
)
def test_what_is_not_supported_is_named(changes: dict[int, tuple[int, ...]], message: str) -> None:
    fields = {256: (2,), 257: (1,), 258: (8,), 259: (1,), 262: (2,), 277: (3,), 278: (1,)}
    with pytest.raises(InvalidImageError, match=f"^not supported: .*{message}"):
        decode(tiff(fields | changes, [bytes(20)]))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_strip_that_the_file_does_not_hold_is_no_picture(compressed: bool) -> None:
    """Not even where the reader's own directory stands behind the file."""
    data = encode(noise(40, 40), "TIFF", compression="tiff_deflate" if compressed else None)
    fields = {
        256: (40,),
        257: (40,),
        258: (8,),
        259: (8 if compressed else 1,),
        262: (2,),
        277: (3,),
        278: (40,),
    }
    strip = zlib.compress(noise(40, 40).tobytes()) if compressed else noise(40, 40).tobytes()
    decode(tiff(fields, [strip]))
    for place, length in ((100_000, len(strip)), (len(data), len(strip)), (600, len(strip))):
        with pytest.raises(InvalidImageError, match="cut short"):
            decode(tiff(fields | {273: (place,), 279: (length,)}, [strip]))


FIELDS = {256: (64,), 257: (64,), 258: (8,), 259: (8,), 262: (1,), 277: (1,), 278: (1,)}
RAW_TILES = FIELDS | {256: (1456,), 257: (1456,), 259: (1,), 322: (16,), 323: (16,)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: tiff(FIELDS | dict.fromkeys(range(40000, 45000), (0,)), [b"0"] * 64), "5,009 tags"),
        (lambda: tiff(FIELDS | {273: (8,) * 70_000}, [b"0"] * 64), "70,000 strips"),
        (lambda: tiff(FIELDS | {273: (8,) * 300_000}, [b"0"] * 64), "300,000 values"),
        (lambda: tiff(FIELDS | {273: (8,) * 64, 279: (2000,) * 64}, [bytes(2000)]), "bytes in its strips"),
        (lambda: tiff(FIELDS | {322: (65_536,), 323: (65_536,), 324: (8,), 325: (9,)}, [b"0"] * 9), "tiles"),
        (lambda: tiff(RAW_TILES | {324: (8,) * 8281, 325: (256,) * 8281}, [bytes(300)]), "8,281 tiles"),
    ],
    ids=["tags", "strips", "values", "shared bytes", "tiles", "raw tiles"],
)
def test_work_is_bounded(data: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ImageTooLargeError, match=message):
        decode(data(), ImageLimits())


def test_strips_are_no_tiles() -> None:
    """A size of tiles beside strips, which libtiff would take for the strips' own."""
    pixels = noise(64, 64)[..., 0]
    strips = [zlib.compress(row.tobytes()) for row in pixels]
    found = decode(tiff(FIELDS | {322: (8192,), 323: (8192,)}, strips))
    assert np.array_equal(np.asarray(found.image)[..., 0], pixels)


def test_missing_or_unneeded_strips() -> None:
    for places in ((8,) * 63, (8,) * 65):
        with pytest.raises(InvalidImageError, match="strips or tiles, not 64"):
            decode(tiff(FIELDS | {273: places}, [b"0"] * 64))
