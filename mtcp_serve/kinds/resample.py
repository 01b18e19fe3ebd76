"""Arrays at another size or as pixels, band by band."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BAND = 2**16  # pixels worked on at a time, so that intermediate values stay in the processor's cache


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that together cover ``height``, each of about 65,536 pixels."""
    step = max(_BAND // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def resize(values: NDArray[Any], height: int, width: int, rule: Image.Resampling) -> NDArray[Any]:
    """``[h, w]`` or ``[h, w, channels]``, uint8 or float32, at ``height`` x ``width``."""
    if values.ndim == 2:
        return np.asarray(Image.fromarray(values).resize((width, height), rule))
    resized = np.empty((height, width, *values.shape[2:]), values.dtype)
    for channel in range(values.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(values[..., channel]))
        resized[..., channel] = plane.resize((width, height), rule)
    return resized


def quantize(
    values: NDArray[Any],
    dtype: type[np.uint8 | np.uint16],
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> Image.Image:
    """An image of ``convert(values)``, which must be in the range of ``dtype``; done band by band."""
    pixels = np.empty(values.shape, dtype)
    for rows in bands(*values.shape[:2]):
        pixels[rows] = convert(values[rows])
    return Image.fromarray(pixels)
