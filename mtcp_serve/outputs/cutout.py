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


def foreground(
    pixels: NDArray[np.uint8], alpha: NDArray[np.float32], where: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The subject's own colours ``[N, 3]``, 0 to 255, at the pixels ``where`` that is true, row by row.

    The two-step blur fusion of Forte, "Approximate Fast Foreground Colour Estimation" (ICIP 2021), equations
    4 to 7. Its blurred colours of subject and background are made at no more than `_COARSE` pixels a side.
    """
    height, width = alpha.shape
    shrink = max(max(height, width) / _COARSE, 1)
    small = max(round(width / shrink), 1), max(round(height / shrink), 1)
    rows = np.ascontiguousarray(pixels.transpose(0, 2, 1), np.float32)
    image = _resize(rows, small)
    share = _resize(alpha[:, None], small)
    wide, narrow = (max(round(radius / shrink), 1) for radius in _RADII)
    own, other = _blur(image, image, share, wide)
    own, other = _blur(_fuse(image, share, own, other), other, share, narrow)
    places = np.flatnonzero(where)
    own, other = (_enlarged(colors, (width, height), places) for colors in (own, other))
    exact = pixels.reshape(-1, 3).take(places, axis=0).astype(np.float32)
    return _fuse(exact, alpha.take(places)[:, None], own, other)


def cutout(pixels: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGBA ``[height, width, 4]``, the colours not multiplied by the opacity; clear pixels are all 0."""
    alpha = opacity(probability)
    soft = (alpha > 0) & (alpha < 1)
    result = np.dstack([pixels, np.rint(alpha * 255).astype(np.uint8)])
    if soft.any():
        result[soft, :3] = np.rint(foreground(pixels, alpha, soft)).astype(np.uint8)
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
    own: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean colours of subject and background around each pixel, each weighted by its share of it.

    Colours are ``[height, 3, width]``, the share of the subject ``[height, 1, width]``.
    """
    parts = _box(np.concatenate([own * share, other * (1 - share), share], axis=1), radius)
    weight = parts[:, 6:]
    own = np.divide(parts[:, :3], np.maximum(weight, _LEAST), dtype=np.float32)
    return own, np.divide(parts[:, 3:6], np.maximum(1 - weight, _LEAST), dtype=np.float32)


def _fuse(
    image: NDArray[np.float32],
    share: NDArray[np.float32],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
) -> NDArray[np.float32]:
    mixed = share * own + (1 - share) * other
    fused: NDArray[np.float32] = own + share * (image - mixed)
    return fused.clip(0, 255, out=fused)


def _box(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Of ``[height, channels, width]`` the mean over a square of ``2 * radius + 1`` pixels, or over what
    of it lies in the image."""
    for _ in range(2):
        values = _means(np.ascontiguousarray(values), radius).transpose(2, 1, 0)
    return values


def _means(rows: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean of each row and of the ``radius`` rows on either side of it that there are.

    A sum runs along with the window; of at most `_COARSE` rows, so single precision is enough.
    """
    means = np.empty_like(rows)
    total = rows[:radius].sum(axis=0)
    for row, mean in enumerate(means):
        if row + radius < len(rows):
            total += rows[row + radius]
        if row > radius:
            total -= rows[row - radius - 1]
        np.divide(total, min(row + radius + 1, len(rows)) - max(row - radius, 0), out=mean)
    return means


def _resize(rows: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """``[height, channels, width]`` at ``size``: width and height, no larger."""
    if (rows.shape[2], rows.shape[0]) == size:
        return rows
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in rows.transpose(1, 0, 2))
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.BOX)) for plane in planes], axis=1)


def _enlarged(
    rows: NDArray[np.float32], size: tuple[int, int], places: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Of ``[height, channels, width]``, bilinearly at ``size``, the ``[N, channels]`` at ``places`` in it."""
    height, channels, width = rows.shape
    values = np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(-1, channels)
    if size == (width, height):
        return values.take(places, axis=0)
    down, across = np.divmod(places, size[0])
    top, lower = _neighbours(down, size[1], height)
    left, right = _neighbours(across, size[0], width)

    def along(row: NDArray[np.intp]) -> NDArray[np.float32]:
        first, second = (values.take(row * width + column, axis=0) for column in (left, left + (right > 0)))
        mixed: NDArray[np.float32] = first + right[:, None] * (second - first)
        return mixed

    upper = along(top)
    upper += lower[:, None] * (along(top + (lower > 0)) - upper)
    return upper


def _neighbours(
    places: NDArray[np.intp], size: int, small: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of ``places`` of an axis of ``size``: the one before on an axis of ``small``, and how far beyond it."""
    exact = ((places + 0.5) * (small / size) - 0.5).clip(0, small - 1)
    before = exact.astype(np.intp)
    return before, (exact - before).astype(np.float32)
