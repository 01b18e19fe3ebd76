"""The one reader of image files: untrusted bytes to an upright RGB image, within limits.

Every format has a module with a function ``look``: it walks the file without decoding pixels, refuses what
would take too long, and cuts out the still image, so that nothing else of the file reaches a decoder.
"""

from mtcp_serve.inference.images.decoded import DecodedImage, ImageInfo
from mtcp_serve.inference.images.limits import (
    BYTES_PER_PIXEL,
    DEFAULT_LIMITS,
    OVERSIZE,
    PILLOW_MAX_PIXELS,
    ImageLimits,
)
from mtcp_serve.inference.images.reader import FORMATS, IMAGE_SUFFIXES, decode, is_image, measure, read

__all__ = [
    "BYTES_PER_PIXEL",
    "DEFAULT_LIMITS",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "OVERSIZE",
    "PILLOW_MAX_PIXELS",
    "DecodedImage",
    "ImageInfo",
    "ImageLimits",
    "decode",
    "is_image",
    "measure",
    "read",
]
