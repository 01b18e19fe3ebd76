"""What becomes of every mode of every format that Pillow writes: ``python -m ...outcomes`` prints the table.

``=``: read, every pixel as it was; ``~``: read, and lossy; ``n``: refused, "not supported"; empty: Pillow (or
libheif) writes no such file, but one of another mode at most. Anything else, a wrong pixel above all, is an
`AssertionError`.
"""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pillow_heif import HeifImageFile, from_pillow

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images import decode
from mtcp_serve.inference.images.rgb import to_rgb
from tests.mtcp_serve.support import noise

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F")
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 95, "subsampling": 0}),
    "JPEG, progressive": ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 95}),
    "WebP, lossless": ("WEBP", {"lossless": True, "exact": True}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, PackBits": ("TIFF", {"compression": "packbits"}),
    "TIFF, Zstandard": ("TIFF", {"compression": "zstd"}),
    "TIFF, LZMA": ("TIFF", {"compression": "lzma"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "TIFF, CCITT 4": ("TIFF", {"compression": "group4"}),
    "AVIF": ("AVIF", {"quality": 95}),
    "HEIC": ("HEIF", {"quality": 95}),
}
LOSSY = 8.0
"""Mean difference of a pixel's value that a lossy format may have."""


def sample(mode: str) -> Image.Image:
    """A smooth image with every pixel another, and of some alpha."""
    smooth = Image.fromarray(noise(5, 6)).resize((48, 40), Image.Resampling.BICUBIC)
    rows, columns = np.mgrid[0:40, 0:48]
    match mode:
        case "I;16" | "I;16B":
            values = (rows * 1600 + columns * 7).astype("<u2" if mode == "I;16" else ">u2")
            return Image.frombytes(mode, (48, 40), values.tobytes())
        case "I":
            return Image.fromarray((rows * 20_000 - columns).astype(np.int32))
        case "F":
            return Image.fromarray((rows / 39 - columns).astype(np.float32))
        case "LA" | "PA" | "RGBA" | "RGBa":
            clear = smooth.convert("RGBA")
            clear.putalpha(smooth.getchannel("G"))
            return clear.convert("LA").convert("PA") if mode == "PA" else clear.convert(mode)
        case "LAB":
            return Image.frombytes("LAB", (48, 40), smooth.tobytes())
        case "P":
            return smooth.quantize(64, dither=Image.Dither.NONE)
    return smooth.convert(mode, dither=Image.Dither.NONE)


def outcome(format: str, mode: str) -> str:
    """``=``, ``~``, ``n`` or nothing."""
    image = sample(mode)
    name, options = FORMATS[format]
    buffer = BytesIO()
    try:
        if name == "HEIF":
            from_pillow(image).save(buffer, **options)
        else:
            image.save(buffer, name, **options)
    except (OSError, ValueError, KeyError, SystemError):
        return ""
    with HeifImageFile(buffer) if name == "HEIF" else Image.open(buffer) as opened:
        if opened.mode != mode:
            return ""
    try:
        read = np.asarray(decode(buffer.getvalue()).image, np.float64)
    except InvalidImageError as error:
        if not error.message.startswith("not supported: "):
            raise AssertionError(format, mode) from error
        return "n"
    wanted = np.asarray(to_rgb(image), np.float64)
    assert read.shape == wanted.shape
    if np.array_equal(read, wanted):
        return "="
    difference = float(np.abs(read - wanted).mean())
    assert difference < LOSSY, (format, mode, difference)
    return "~"


def table() -> str:
    """The table of `docs/images.md`; formats of the same outcomes share a line."""
    lines: dict[str, list[str]] = {}
    for format in FORMATS:
        lines.setdefault(" | ".join(outcome(format, mode) for mode in MODES), []).append(format)
    head = ["| | " + " | ".join(MODES) + " |", "|---|" + ":-:|" * len(MODES)]
    return "\n".join([*head, *(f"| {'; '.join(formats)} | {line} |" for line, formats in lines.items())])


if __name__ == "__main__":
    print(table())
