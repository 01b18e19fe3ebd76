"""Broken and odd image files, made on the spot: what each is, and the answer that is documented for it."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from tests.mtcp_serve.inference.images.build import many_scans, png_header, segment, tiff
from tests.mtcp_serve.support import encode, noise

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
OK, BAD = (200, ""), (400, "invalid_image")
LARGE = (413, "image_too_large")
OK_OR_BAD = (0, "")
"""Damage that a decoder may or may not notice; both answers are documented, a 500 is not."""

Case = tuple[str, bytes, tuple[int, str]]


def corpus() -> Iterator[Case]:
    """Name, bytes, and (status, code)."""
    yield from _odd()
    yield from _cut()
    yield from _damaged()
    yield from _other()
    yield from _large()


def _odd() -> Iterator[Case]:
    """Good files that are out of the ordinary."""
    photo = Image.fromarray(noise(21, 17))
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        image = photo.convert("I").convert(mode) if mode == "I;16" else photo.convert(mode)
        yield f"png {mode}", encode(image, "PNG"), OK
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"):
        image = photo.convert("I").convert(mode) if mode in ("I", "I;16", "F") else photo.convert(mode)
        yield f"tiff {mode}", encode(image, "TIFF"), OK
    for mode in ("L", "RGB", "CMYK"):
        yield f"jpeg {mode}", encode(photo.convert(mode), "JPEG"), OK
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp {mode}", encode(photo.convert(mode), "BMP"), OK
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for format in ("JPEG", "PNG", "WEBP"):
            yield f"{format} orientation {orientation}", encode(photo, format, exif=exif), OK
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield f"tiff {compression}", encode(photo, "TIFF", compression=compression), OK
    for width, height in ((1, 1), (1, 300), (300, 1), (2, 2), (1, 4000), (4000, 1)):
        yield f"{width} x {height}", encode(Image.new("RGB", (width, height), "red")), OK
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue", "white")]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"{format} animated", encode(frames[0], format, save_all=True, append_images=frames[1:]), OK
    yield "jpeg progressive", encode(photo, "JPEG", progressive=True), OK
    yield "jpeg quality 1", encode(photo, "JPEG", quality=1), OK
    yield "jpeg broken exif", encode(photo, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"), OK
    yield "jpeg endless comment", encode(photo, "JPEG", comment=b"x" * 60_000), OK
    yield "png 16-bit", encode(Image.fromarray(np.full((5, 5), 65535, np.uint16))), OK
    yield "png palette with alpha", encode(photo.convert("P"), transparency=bytes(range(256))), OK
    yield "png colour key", encode(photo, transparency=(1, 2, 3)), OK
    yield "tiff nan", encode(Image.fromarray(np.full((5, 5), np.nan, np.float32)), "TIFF"), OK
    yield "tiff infinite", encode(Image.fromarray(np.full((5, 5), np.inf, np.float32)), "TIFF"), OK
    for format in FORMATS:
        yield f"{format} with a tail", encode(photo, format) + b"tail" * 50, OK
    yield "png text bomb", _text_bomb(), OK
    yield "png of damaged pixels", _flipped(encode(noise(60, 60))), BAD
    yield "jpeg of many scans", many_scans(64, 64, 600), LARGE
    comments = segment(0xFE, b"") * 20_000
    yield "jpeg of empty segments", b"\xff\xd8" + comments + encode(photo, "JPEG")[2:], LARGE
    premultiplied = np.sort(noise(6, 5)[..., :2], axis=-1)
    tags = {256: (5,), 257: (6,), 258: (8,), 259: (1,), 262: (1,), 277: (2,), 278: (6,), 338: (1,)}
    yield "tiff grey with premultiplied alpha", tiff(tags, [premultiplied.tobytes()]), OK
    tags = {256: (4,), 257: (1,), 258: (16,), 259: (1,), 262: (2,), 277: (3,), 278: (1,), 284: (2,)}
    yield "tiff 16-bit planes apart", tiff(tags, [bytes(8)] * 3), BAD
    yield "tiff 16-bit white is zero", tiff({**tags, 262: (0,), 277: (1,), 284: (1,)}, [bytes(8)]), BAD
    yield "a real avif", encode(photo, "AVIF"), OK
    yield "jpeg with junk in front", b"\n" + encode(photo, "JPEG"), BAD


def _cut() -> Iterator[Case]:
    """Good files that end early."""
    for format in FORMATS:
        whole = encode(noise(64, 64, seed=5), format)
        for share in (0.02, 0.2, 0.5, 0.9):
            yield f"{format} cut at {share}", whole[: int(len(whole) * share)], BAD
        yield f"{format} without the last bytes", whole[:-12], OK_OR_BAD if format in ("GIF", "PNG") else BAD
        yield f"{format} head only", whole[:8], BAD


def _damaged() -> Iterator[Case]:
    """Good files with other bytes in them."""
    rng = np.random.default_rng(11)
    for format in FORMATS:
        whole = np.frombuffer(encode(noise(48, 48, seed=6), format), np.uint8)
        for seed in range(5):
            data = whole.copy()
            where = rng.integers(0, data.size, 1 + 4 * seed)
            data[where] = rng.integers(0, 256, where.size)
            yield f"{format} damaged {seed}", data.tobytes(), OK_OR_BAD
        data = whole.copy()
        data[data.size // 2 : data.size // 2 + 200] = 0
        yield f"{format} with a hole", data.tobytes(), OK_OR_BAD


def _other() -> Iterator[Case]:
    """Files that are not images, whatever they call themselves."""
    yield "nothing", b"", (400, "empty_image")
    for name, data in {
        "one byte": b"\xff",
        "zeros": bytes(5000),
        "text": b"hello " * 100,
        "html": b"<!doctype html><html></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "json": b'{"image": "x"}',
        "pdf": b"%PDF-1.7\n%%EOF",
        "zip": b"PK\x05\x06" + bytes(18),
        "executable": b"\x7fELF" + bytes(60),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "ppm": b"P6 2 2 255\n" + bytes(12),
        "ico": _as(Image.new("RGBA", (16, 16)), "ICO"),
        "tga": _as(Image.new("RGB", (4, 4)), "TGA"),
        "pcx": _as(Image.new("RGB", (4, 4)), "PCX"),
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "avif": b"\0\0\0 ftypavif" + bytes(40),
        "heic": b"\0\0\0 ftypheic" + bytes(40),
        "mp4": b"\0\0\0 ftypisom" + bytes(40),
        "random": np.random.default_rng(3).bytes(4000),
        "jpeg marker": b"\xff\xd8\xff",
        "jpeg with nothing in it": b"\xff\xd8\xff\xd9",
        "png signature": b"\x89PNG\r\n\x1a\n",
        "gif signature": b"GIF89a",
        "gif without frames": b"GIF89a\x05\0\x05\0\0\0\0;",
        "webp head": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        "bmp head": b"BM" + bytes(24),
        "tiff head": b"II*\0\x08\0\0\0",
        "tiff that points at itself": b"II*\0\x08\0\0\0\x01\0" + bytes(12) + b"\x08\0\0\0",
        "png of size zero": png_header(0, 0),
        "png of width zero": png_header(0, 10),
        "png without pixels": png_header(10, 10),
        "png with a wrong checksum": encode(noise(5, 5)).replace(b"IDAT", b"IDAX"),
        "png chunk too long": b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR" + bytes(30),
    }.items():
        yield name, data, BAD


def _large() -> Iterator[Case]:
    """Headers that announce more than the settings of the tests allow."""
    sides = [(2001, 2000), (4001, 1), (1, 4001), (50_000, 50_000), (2**31 - 1, 1), (30_000, 30_000)]
    for width, height in sides:
        yield f"png {width} x {height}", png_header(width, height), LARGE
    bmp = bytearray(encode(noise(4, 4), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    yield "bmp that is huge", bytes(bmp), LARGE
    gif = bytearray(encode(noise(4, 4), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield "gif that is huge", bytes(gif), LARGE
    yield "real and too wide", encode(Image.new("1", (4001, 2))), LARGE
    yield "too many bytes", b"\xff\xd8" + b"x" * 1_000_000, (413, "payload_too_large")


def _as(image: Image.Image, format: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def _flipped(data: bytes) -> bytes:
    """One bit of the middle byte is another."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _text_bomb() -> bytes:
    """A PNG whose compressed text unpacks to 200 MB."""
    packed = b"key\0\0" + zlib.compress(bytes(200_000_000), 1)
    chunk = (
        struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    )
    whole = encode(noise(4, 4))
    return whole[:33] + chunk + whole[33:]
