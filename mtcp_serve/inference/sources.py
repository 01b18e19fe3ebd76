"""What a program may call an image: a file, its bytes, a Pillow image, an array, a tensor."""

from concurrent.futures import Future
from numbers import Rational
from os import PathLike, fspath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mtcp_serve.errors import InvalidImageError
from mtcp_serve.inference.images import DEFAULT_LIMITS, DecodedImage, ImageInfo, ImageLimits, decode, read
from mtcp_serve.inference.images.exif import (
    QUARTER_TURNS,
    UPRIGHT,
    focal_lengths,
    focal_of,
    orientation,
)
from mtcp_serve.inference.images.rgb import to_rgb

_ORIENTATION = 0x0112
_TOO_LARGE = "scale it down, or give larger ImageLimits"


class Tensor(Protocol):
    """As far as a torch tensor is used; nothing here imports torch."""

    def detach(self) -> Any:
        """Without its gradient."""


class Taken:
    """What `to_image` found, or why it could not, when the image was handed over."""

    def __init__(self, source: "ImageSource", limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self.name = name_of(source)
        self._found: Future[DecodedImage] = Future()
        try:
            self._found.set_result(to_image(source, limits))
        except Exception as error:
            self._found.set_exception(error)

    def image(self) -> DecodedImage:
        """The image.

        Raises:
            OSError, RequestError, TypeError: as `to_image`.
        """
        return self._found.result()


ImageSource = str | PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor | Taken
"""A path; the bytes of a file; a Pillow image (its EXIF is heeded as that of a file); a NumPy array
``[height, width, 3]``, or a torch tensor ``[3, height, width]``: RGB, uint8, or floats from 0 to 1. Also what
`take` made of one."""


def take(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> ImageSource:
    """``source`` as it is now, for a `to_image` that comes when its owner may have filled it anew.

    Files and bytes are read then, everything else at once.
    """
    if isinstance(source, str | PathLike | bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    return Taken(source, limits)


def to_image(
    source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS, enough: int | None = None
) -> DecodedImage:
    """``source`` as upright RGB; of files see `mtcp_serve.inference.images.decode`.

    Raises:
        OSError: a file cannot be read.
        RequestError: a file is not an image that can be used, or an array not of the right shape and type.
        TypeError: ``source`` is none of `ImageSource`.
    """
    if isinstance(source, Taken):
        return source.image()
    if isinstance(source, str | PathLike):
        return read(source, limits, enough)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(bytes(source), limits, enough)
    if isinstance(source, Image.Image):
        return _of_pillow(source, limits)
    if isinstance(source, np.ndarray):
        return _of_array(source, "array", limits)
    if hasattr(source, "detach"):
        return _of_tensor(source, limits)
    raise TypeError(
        "an image is a path, bytes, a Pillow image, a NumPy array [height, width, 3] or a torch tensor "
        f"[3, height, width]; this is {type(source).__name__}"
    )


def name_of(source: ImageSource) -> str:
    """What to call ``source`` in a message."""
    if isinstance(source, Taken):
        return source.name
    if isinstance(source, str | PathLike):
        return fspath(source)
    return f"the image ({type(source).__name__})"


def _of_pillow(image: Image.Image, limits: ImageLimits) -> DecodedImage:
    if not all(image.size):
        raise InvalidImageError(
            f"a Pillow image of {image.width} x {image.height} pixels is not an image", "give one with pixels"
        )
    limits.check_size(*image.size, _TOO_LARGE)
    turned = _orientation(image) in UPRIGHT
    focal = _focal_lengths(image)
    _load(image)
    rgb = to_rgb(image)
    if (way := UPRIGHT.get(_orientation(image))) is not None:
        rgb = rgb.transpose(way)
    elif rgb is image:
        rgb = image.copy()  # whose owner may draw on it
    return DecodedImage(
        rgb,
        ImageInfo(
            rgb.width,
            rgb.height,
            image.format or "Pillow",
            image.mode,
            exif_rotated=turned,
            animated=bool(getattr(image, "is_animated", False)),
            focal=focal,
        ),
    )


def _focal_lengths(image: Image.Image) -> tuple[float, float] | None:
    """Those that the EXIF says, across and down, in pixels of the upright image."""
    if isinstance(exif := image.info.get("exif"), bytes):
        focal = focal_lengths(exif, *image.size)
        return focal[::-1] if focal and _orientation(image) in QUARTER_TURNS else focal
    entries = image.getexif().get_ifd(ExifTags.IFD.Exif)  # of a TIFF, whose size is that of the upright image
    numbers = {tag: float(value) for tag, value in entries.items() if isinstance(value, int | Rational)}
    return focal_of(numbers, *image.size)


def _load(image: Image.Image) -> None:
    """Load the pixels. Pillow turns a TIFF then, which has no orientation afterwards; by XMP not here."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or _ORIENTATION in tags:
        image.load()
        return
    exif = image.getexif()
    exif[_ORIENTATION] = 1  # in the place of XMP's
    image.load()
    del exif[_ORIENTATION]


def _orientation(image: Image.Image) -> int:
    """The orientation that the EXIF says; Pillow takes that of XMP where EXIF has none."""
    if not {"xmp", "XML:com.adobe.xmp"} & image.info.keys():
        said = image.getexif().get(_ORIENTATION, 1)
    elif isinstance(exif := image.info.get("exif"), bytes):
        said = orientation(exif)
    else:
        said = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1)
    return said if isinstance(said, int) else 1


def _of_tensor(tensor: Any, limits: ImageLimits) -> DecodedImage:
    here = tensor.detach().cpu()
    try:
        array = np.asarray(here)
    except TypeError:  # NumPy has no bfloat16
        array = np.asarray(here.float())
    if array.ndim != 3 or array.shape[0] != 3:
        raise InvalidImageError(
            f"a tensor of shape {list(array.shape)} is not an image",
            "give [3, height, width]: channels first",
        )
    return _of_array(array.transpose(1, 2, 0), "tensor", limits)


def _of_array(array: NDArray[Any], what: str, limits: ImageLimits) -> DecodedImage:
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InvalidImageError(
            f"an {what} of shape {list(array.shape)} is not an image", "give RGB [height, width, 3]"
        )
    height, width = array.shape[:2]
    limits.check_size(width, height, _TOO_LARGE)
    if array.dtype != np.uint8:
        if array.dtype.kind != "f":
            raise InvalidImageError(
                f"the {what} is of type {array.dtype}", "give uint8 from 0 to 255, or floats from 0 to 1"
            )
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise InvalidImageError(
                f"the {what}'s values are from {array.min():.4g} to {array.max():.4g}",
                "floats must be from 0 to 1; convert other ranges to uint8",
            )
        array = np.rint(array * 255).astype(np.uint8)
    info = ImageInfo(width, height, what, "RGB", exif_rotated=False, animated=False)
    return DecodedImage(Image.fromarray(np.ascontiguousarray(array)), info)
