"""The subject of an image without its background: opacity from the saliency, colours freed of the background.

A pixel at a soft edge is a mixture of subject and background. Laid over another background it would bring the
old one along as a rim, so the subject's own colour is estimated there.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import ProbabilityTask
from mtcp_serve.outputs.points import pixels_of

_CLEAR, _SOLID = 0.05, 0.95  # probabilities that count as 0 and as 1: haze and pinholes are no soft edge
_RADII: Final = (90, 6)  # of the two blurs, pixels, as the paper has them
_COARSE: Final = 512
_LEAST: Final = np.float32(1e-5)


def opacity(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of each pixel is subject, from 0 to 1, of a saliency map ``[height, width]``."""
    return ((probability - _CLEAR) / np.float32(_SOLID - _CLEAR)).clip(0, 1)


def foreground(pixels: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """The subject's own colours ``[height, width, 3]``, 0 to 255; where ``alpha`` is 1 they are the image's.

    The two-step blur fusion of Forte, "Approximate Fast Foreground Colour Estimation" (ICIP 2021), equations
    4 to 7. Its blurred colours of subject and background are made at no more than `_COARSE` pixels a side.
    """
    height, width = alpha.shape
    shrink = max(max(height, width) / _COARSE, 1)
    small = max(round(width / shrink), 1), max(round(height / shrink), 1)
    image = _resize(pixels.astype(np.float32), small, Image.Resampling.BOX)
    share = _resize(alpha, small, Image.Resampling.BOX)
    own = other = image
    for radius in _RADII:
        blurred, other = _blur(own, other, share, max(round(radius / shrink), 1))
        own = _fuse(image, share, blurred, other)
    blurred = _resize(blurred, (width, height), Image.Resampling.BILINEAR)
    other = _resize(other, (width, height), Image.Resampling.BILINEAR)
    return _fuse(pixels.astype(np.float32), alpha, blurred, other)


def cutout(pixels: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGBA ``[height, width, 4]``, the colours not multiplied by the opacity; clear pixels are all 0."""
    alpha = opacity(probability)
    soft = (alpha > 0) & (alpha < 1)
    result = np.dstack([pixels, np.rint(alpha * 255).astype(np.uint8)])
    if soft.any():
        result[soft, :3] = np.rint(foreground(pixels, alpha)[soft]).astype(np.uint8)
    result[result[..., 3] == 0] = 0
    return result


def over(cut: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The cut-out over one colour: RGB ``[height, width, 3]``."""
    alpha = cut[..., 3:].astype(np.float32) / 255
    mixed = cut[..., :3] * alpha + np.array(color, np.float32) * (1 - alpha)
    return np.rint(mixed).astype(np.uint8)


def saliency_of(prediction: DenseMaps) -> DenseMap:
    """The prediction's first probability map.

    Raises:
        ValueError: there is none.
    """
    for dense in prediction.maps:
        if isinstance(dense.task, ProbabilityTask):
            return dense
    raise ValueError("the prediction has no probability map, such as saliency")


def cut_out(prediction: DenseMaps, color: tuple[int, int, int] | None = None) -> Image.Image:
    """The image's subject at the size of the maps: RGBA, or RGB over ``color``.

    Raises:
        ValueError: the prediction has no saliency, or was not told to keep its image.
    """
    dense = saliency_of(prediction)
    cut = cutout(
        pixels_of(prediction, dense.height, dense.width), dense.values().astype(np.float32, copy=False)
    )
    return Image.fromarray(cut if color is None else over(cut, color))


def _blur(
    own: NDArray[np.float32], other: NDArray[np.float32], alpha: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean colours of subject and background around each pixel, each weighted by its share of it."""
    share = alpha[..., None]
    parts = _box(np.concatenate([own * share, share, other * (1 - share), 1 - share], axis=-1), radius)
    weights = np.maximum(parts[..., 3::4], _LEAST)
    own = np.divide(parts[..., :3], weights[..., :1], dtype=np.float32)
    return own, np.divide(parts[..., 4:7], weights[..., 1:], dtype=np.float32)


def _fuse(
    image: NDArray[np.float32],
    alpha: NDArray[np.float32],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
) -> NDArray[np.float32]:
    share = alpha[..., None]
    fused: NDArray[np.float32] = own + share * (image - share * own - (1 - share) * other)
    return fused.clip(0, 255)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean over a square of ``2 * radius + 1`` pixels, or what of it lies in the image."""
    for axis in (0, 1):
        length = values.shape[axis]
        total = np.cumsum(values, axis=axis)  # of at most `_COARSE` values: single precision is enough
        total = np.concatenate([np.zeros_like(total.take([0], axis)), total], axis=axis)
        first = np.maximum(np.arange(length) - radius, 0)
        last = np.minimum(np.arange(length) + radius + 1, length)
        size = (last - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        values = np.divide(total.take(last, axis) - total.take(first, axis), size, dtype=np.float32)
    return values


def _resize(
    values: NDArray[np.float32], size: tuple[int, int], rule: Image.Resampling
) -> NDArray[np.float32]:
    """``[height, width]`` or ``[height, width, channels]`` at ``size``: width and height."""
    if values.shape[1::-1] == size:
        return values
    if values.ndim == 2:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, rule))
    return np.stack([_resize(values[..., at], size, rule) for at in range(values.shape[-1])], axis=-1)
