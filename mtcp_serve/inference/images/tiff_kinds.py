"""Which kinds of TIFF are read.

Pillow opens more of them than it reads right; the tests compare each kind with another reader.
"""

from enum import IntEnum
from typing import Final

from mtcp_serve.inference.images.still import not_supported


class Tag(IntEnum):
    """The tags that the pixels need, and the orientation."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    STRIP_BYTES = 279
    PLANES = 284
    GROUP_3 = 292
    GROUP_4 = 293
    PREDICTOR = 317
    PALETTE = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    EXTRA = 338
    FORMAT = 339
    JPEG_TABLES = 347
    YCBCR_SUBSAMPLING = 530


Tags = dict[Tag, tuple[int, ...]]
"""The values of the tags that a file has."""

_RAW, _JPEG = 1, 7
_COMPRESSIONS: Final = {_RAW, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000}
"""None, CCITT, LZW, JPEG, deflate, PackBits, LZMA, Zstandard."""
_BITWISE: Final = {_RAW, 2, 3, 4}
_NAMES: Final = {6: "old-style JPEG", 34712: "JPEG 2000", 50001: "WebP", 50002: "JPEG XL"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLORS: Final = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_BITS: Final = {
    (_WHITE_IS_ZERO, _UNSIGNED): (1, 2, 4, 8),
    (_BLACK_IS_ZERO, _UNSIGNED): (1, 2, 4, 8, 16),
    (_BLACK_IS_ZERO, _SIGNED): (16, 32),
    (_BLACK_IS_ZERO, _FLOAT): (32,),
    (_RGB, _UNSIGNED): (8, 16),
    (_PALETTE, _UNSIGNED): (1, 2, 4, 8),
    (_CMYK, _UNSIGNED): (8, 16),
    (_YCBCR, _UNSIGNED): (8,),
}
_UNSPECIFIED, _PREMULTIPLIED, _ALPHA = 0, 1, 2
_EXTRA: Final = {  # photometric and bits -> what a sample beyond the colours may be
    (_BLACK_IS_ZERO, 8): (_UNSPECIFIED, _PREMULTIPLIED, _ALPHA),
    (_RGB, 8): (_UNSPECIFIED, _PREMULTIPLIED, _ALPHA),
    (_RGB, 16): (_UNSPECIFIED, _PREMULTIPLIED, _ALPHA),
    (_PALETTE, 8): (_UNSPECIFIED, _ALPHA),
    (_CMYK, 8): (_UNSPECIFIED,),
}
_REVERSED: Final = 2  # fill order


def check_kind(tags: Tags, big_endian: bool) -> None:
    """Refuse what would be misread.

    Raises:
        InvalidImageError: the kind is not supported.
    """
    compression = _only(tags, Tag.COMPRESSION, _RAW)
    if compression not in _COMPRESSIONS:
        raise not_supported(f"a TIFF compressed by {_NAMES.get(compression, f'method {compression}')}")
    photometric = _only(tags, Tag.PHOTOMETRIC, _WHITE_IS_ZERO)
    if photometric not in _COLORS:
        raise not_supported(f"a TIFF of photometric interpretation {photometric}")
    bits, format = _only(tags, Tag.BITS, 1), _only(tags, Tag.FORMAT, _UNSIGNED)
    if bits not in _BITS.get((photometric, format), ()):
        raise not_supported(
            f"a TIFF of {bits} bits, sample format {format} and photometric interpretation {photometric}"
        )
    whole = tags.get(Tag.YCBCR_SUBSAMPLING) == (1, 1) and tags.get(Tag.PLANES, (1,)) == (1,)
    if photometric == _YCBCR and compression != _JPEG and not (compression == _RAW and whole):
        raise not_supported("a TIFF of YCbCr with fewer samples of colour, not compressed by JPEG")
    if compression != _RAW and big_endian and format != _UNSIGNED:
        raise not_supported("a compressed big-endian TIFF of signed or floating-point samples")
    plain = bits == 1 and photometric != _PALETTE and compression in _BITWISE
    if tags.get(Tag.FILL_ORDER) == (_REVERSED,) and not plain:
        raise not_supported("a TIFF with reversed bits")
    if (photometric, bits) == (_PALETTE, 1) and compression != _RAW:
        raise not_supported("a compressed TIFF with a palette of two colours")
    _check_samples(tags, photometric, bits, compression)


def _check_samples(tags: Tags, photometric: int, bits: int, compression: int) -> None:
    """Colours, what is beyond them, and whether their planes are apart."""
    samples, extra = _only(tags, Tag.SAMPLES, 1), tags.get(Tag.EXTRA, ())
    beyond = samples - _COLORS[photometric]
    if beyond == 1 and not extra and photometric == _RGB:
        extra = (_ALPHA,)  # old files leave the tag out
    readable = not extra or (extra[0] in _EXTRA.get((photometric, bits), ()) and not any(extra[1:]))
    if beyond != len(extra) or not readable or len(extra) > (3 if (photometric, bits) == (_RGB, 8) else 1):
        raise not_supported(f"a TIFF of {samples} samples a pixel, {extra} of them beyond its colours")
    if samples == 1 or _only(tags, Tag.PLANES, 1) == 1:
        return
    raw = compression == _RAW
    if (
        photometric not in (_RGB, _CMYK)
        or len(extra) > 1
        or (raw and (bits != 8 or extra not in ((), (_ALPHA,))))
    ):
        raise not_supported("a TIFF of this kind with its planes apart")


def _only(tags: Tags, tag: Tag, default: int) -> int:
    """The one value that ``tag`` has for all samples.

    Raises:
        InvalidImageError: samples differ.
    """
    values = set(tags.get(tag, (default,)))
    if len(values) != 1:
        raise not_supported(f"a TIFF whose samples differ in their {tag.name.lower()}")
    return values.pop()
