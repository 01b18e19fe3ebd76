"""Small image files of every kind that the reader has code for: where the fuzzer starts."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image
from pillow_heif import from_pillow

from tests.mtcp_serve.inference.images.boxes import grid, pixels_first
from tests.mtcp_serve.inference.images.build import bmp, many_scans, pack, png, tiff
from tests.mtcp_serve.support import encode, noise


def containers() -> Iterator[tuple[str, bytes]]:
    """AVIF and HEIC files, by format."""
    small = Image.fromarray(noise(16, 16)).resize((64, 64))
    clear = small.copy()
    clear.putalpha(small.getchannel("R"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, save in (("AVIF", _avif), ("HEIF", _heic)):
        plain = save(small)
        yield from ((name, data) for data in (plain, pixels_first(plain), grid(plain, 128, 64)))
        yield name, save(small.convert("L"))
        yield name, save(clear)
        yield name, save(small, exif=exif)
    for subsampling in ("4:0:0", "4:2:2", "4:4:4"):
        yield "AVIF", pixels_first(_avif(small, subsampling=subsampling))
    yield "AVIF", _avif(small, save_all=True, append_images=[small.rotate(90)])
    yield "HEIF", _heic(small.convert("I;16"))
    yield "HEIF", pixels_first(_heic(small, chroma=444))


def _avif(image: Image.Image, **options: object) -> bytes:
    return encode(image, "AVIF", **options)


def _heic(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def seeds() -> Iterator[bytes]:
    """The files of formats that are read in this process."""
    rng = np.random.default_rng(0)
    for color, samples, depths in (
        (0, 1, (1, 2, 4, 8, 16)),
        (2, 3, (8, 16)),
        (4, 2, (8, 16)),
        (6, 4, (8, 16)),
    ):
        for bits in depths:
            key = [(b"tRNS", struct.pack(f">{samples}H", *[1] * samples))] if color < 4 and bits <= 8 else []
            yield png(rng.integers(0, 2**bits, (5, 7, samples)), bits, color, *key)
    yield png(rng.integers(0, 4, (5, 7, 1)), 2, 3, (b"tRNS", b"\0\x80"), palette=bytes(range(12)))
    for header, bits, compression, masks in (
        (40, 16, 3, (0xF, 0xF0, 0xF00)),
        (124, 32, 3, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        (40, 32, 6, (0x3FF, 0xFFC00, 0x3FF00000, 0xC0000000)),
        (40, 24, 0, ()),
        (12 + 28, 4, 0, ()),
    ):
        yield bmp(6, 4, bits, compression, rng.bytes(120), masks, rng.bytes(64) if bits == 4 else b"", header)
    yield bmp(
        7, 5, 8, 1, bytes((3, 5, 0, 0, 0, 3, 1, 2, 3, 0, 0, 2, 1, 1, 5, 7, 0, 1)), palette=rng.bytes(1024)
    )
    yield bmp(7, 5, 4, 2, bytes((5, 0x12, 0, 0, 0, 5, 0x34, 0x56, 0x70, 0, 0, 1)), palette=rng.bytes(64))
    yield many_scans(40, 40, 4)
    small = Image.fromarray(noise(17, 23))
    yield encode(small, "JPEG", progressive=True)
    yield encode(small, "JPEG", subsampling=0, restart_marker_rows=1)
    for method in ("tiff_lzw", "packbits", "lzma", "zstd", "jpeg", "tiff_adobe_deflate"):
        yield encode(small, "TIFF", compression=method)
    yield encode(small.convert("1"), "TIFF", compression="group3")
    yield encode(small.convert("1"), "TIFF", compression="group4")
    yield encode(small.convert("YCbCr"), "TIFF")
    fields = {256: (6,), 257: (4,), 258: (8,), 259: (8,), 262: (2,), 277: (3,), 278: (2,)}
    for order in "<>":
        for big in (False, True):
            strips = [zlib.compress(rng.bytes(36)) for _ in range(2)]
            yield tiff(fields, strips, order, big)
            yield tiff(fields | {284: (2,)}, [zlib.compress(rng.bytes(12))] * 6, order, big)
            tile = zlib.compress(rng.bytes(768))
            tiles = {322: (16,), 323: (16,), 324: (16 if big else 8,), 325: (len(tile),)}
            yield tiff(fields | tiles, [tile], order, big)
            levels = pack(rng.integers(0, 4, (4, 6)), 2).tobytes()
            yield tiff(fields | {258: (2,), 259: (1,), 262: (1,), 277: (1,), 278: (4,)}, [levels], order, big)
    yield encode(small.convert("RGBA"), "WEBP")
    yield encode(small.convert("RGBA"), "WEBP", lossless=True)
    yield encode(small, "WEBP", exif=Image.Exif())
