"""The subject of an image without its background: opacity from the saliency, colours freed of the background.

A pixel at a soft edge is a mixture of subject and background. Laid over another background it would bring the
old one along as a rim, so the subject's own colour is estimated there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import MapOut, ProbabilityTask
from mtcp_serve.kinds.grids import between, neighbours, window_means
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.kinds.resample import bands
from mtcp_serve.outputs.metadata import describe_map
from mtcp_serve.outputs.points import pixels_of

_CLEAR, _SOLID = 0.05, 0.95  # probabilities that count as 0 and as 1: haze and pinholes are no soft edge
_RADII: Final = (90, 6)  # of the two blurs, pixels, as the paper has them
_COARSE: Final = 512
_LEAST: Final = np.float32(1e-5)


def opacity(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of each pixel is subject, from 0 to 1, of a saliency map ``[height, width]``."""
    return ((probability - _CLEAR) / np.float32(_SOLID - _CLEAR)).clip(0, 1)


@dataclass(frozen=True)
class Surroundings:
    """The mean colours of subject and background around each pixel of an image of ``height`` x ``width``.

    ``own`` and ``other`` are float32 ``[rows, width, 3]``, 0 to 255, at no more than `_COARSE` rows.
    """

    own: NDArray[np.float32]
    other: NDArray[np.float32]
    height: int

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], alpha: Callable[[slice], NDArray[np.float32]]) -> Self:
        """Those of the image ``pixels``, of whose rows ``alpha`` gives the opacity.

        The two-step blur fusion of Forte, "Approximate Fast Foreground Colour Estimation" (ICIP 2021),
        equations 4 to 7, at no more than `_COARSE` pixels a side.
        """
        height, width = pixels.shape[:2]
        shrink = max(max(height, width) / _COARSE, 1)
        small = max(round(width / shrink), 1), max(round(height / shrink), 1)
        shrunk = _shrunk(pixels, alpha, small)
        image, share = (np.ascontiguousarray(part) for part in (shrunk[:, :3], shrunk[:, 3:]))
        wide, narrow = (max(round(radius / shrink), 1) for radius in _RADII)
        own, other = _blur(image, image, share, wide)
        own, other = _blur(_fuse(image, share, own, other), other, share, narrow)
        return cls(_widened(own, width), _widened(other, width), height)

    def foreground(
        self,
        pixels: NDArray[np.uint8],
        alpha: NDArray[np.float32],
        places: NDArray[np.intp],
        first: int = 0,
    ) -> NDArray[np.float32]:
        """The subject's own colours ``[N, 3]`` at the flat indices ``places`` of rows from ``first`` on."""
        rows, width = alpha.shape
        before, beyond = neighbours(np.arange(first, first + rows), self.height, len(self.own))
        down, across = np.divmod(places, width)
        upper, lower = ((each[down] * width + across) for each in (before, before + (beyond > 0)))
        share = beyond[down][:, None]

        def between(colors: NDArray[np.float32]) -> NDArray[np.float32]:
            colors = colors.reshape(-1, 3)
            mixed: NDArray[np.float32] = colors.take(upper, axis=0)
            if beyond.any():
                mixed += share * (colors.take(lower, axis=0) - mixed)
            return mixed

        exact = pixels.reshape(-1, 3).take(places, axis=0).astype(np.float32)
        return _fuse(exact, alpha.take(places)[:, None], between(self.own), between(self.other))


def foreground(
    pixels: NDArray[np.uint8], alpha: NDArray[np.float32], where: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The subject's own colours ``[N, 3]``, 0 to 255, at the pixels ``where`` that is true, row by row."""
    around = Surroundings.of(pixels, alpha.__getitem__)
    return around.foreground(pixels, alpha, np.flatnonzero(where))


def cutout(pixels: NDArray[np.uint8], probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RGBA ``[height, width, 4]``, the colours not multiplied by the opacity; clear pixels are all 0."""
    result = np.empty((*probability.shape, 4), np.uint8)
    around = None
    for rows in bands(*probability.shape):
        alpha, cut = opacity(probability[rows]), result[rows]
        cut[..., :3] = pixels[rows]
        cut[..., 3] = np.rint(alpha * 255)
        soft = np.flatnonzero((alpha > 0) & (alpha < 1))
        if len(soft):
            around = around or Surroundings.of(pixels, lambda rows: opacity(probability[rows]))
            found = around.foreground(pixels[rows], alpha, soft, rows.start)
            cut.reshape(-1, 4)[soft, :3] = np.rint(found, out=found)
        cut[cut[..., 3] == 0] = 0
    return result


def over(cut: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The cut-out over one colour: RGB ``[height, width, 3]``."""
    result = np.empty((*cut.shape[:2], 3), np.uint8)
    for rows in bands(*cut.shape[:2]):
        alpha = cut[rows, :, 3:].astype(np.float32) / 255
        mixed = cut[rows, :, :3] * alpha + np.array(color, np.float32) * (1 - alpha)
        result[rows] = np.rint(mixed, out=mixed)
    return result


def saliency_of(prediction: DenseMaps) -> DenseMap:
    """The prediction's first probability map.

    Raises:
        ValueError: there is none.
    """
    dense = prediction.first(ProbabilityTask)
    if dense is None:
        raise ValueError("the prediction has no probability map, such as saliency")
    return dense


def cut_out(
    prediction: DenseMaps, color: tuple[int, int, int] | None = None, refine: bool = True
) -> tuple[Image.Image, MapOut]:
    """The image's subject at the size of the maps: RGBA, or RGB over ``color``; and what its saliency is.

    With ``refine`` the saliency follows the edges of the image where it is enlarged.

    Raises:
        ValueError: the prediction has no saliency, or was not told to keep its image.
    """
    dense = saliency_of(prediction)
    pixels = pixels_of(prediction, dense.height, dense.width)
    if refine:
        dense = replace(dense, guide=Guide(lambda: pixels))
    values = dense.values()
    cut = cutout(pixels, values.astype(np.float32, copy=False))
    return Image.fromarray(cut if color is None else over(cut, color)), describe_map(dense, values)


def _blur(
    own: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean colours of subject and background around each pixel, each weighted by its share of it.

    Colours are ``[height, 3, width]``, the share of the subject ``[height, 1, width]``.
    """
    parts = window_means(np.concatenate([own * share, other * (1 - share), share], axis=1), radius)
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


def _shrunk(
    pixels: NDArray[np.uint8], alpha: Callable[[slice], NDArray[np.float32]], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The image and its opacity, ``[height, 4, width]``, averaged over areas to ``size``: width and height.

    Each row by itself and then the columns, as Pillow does, so that no large image is made of floats.
    """
    height, width = pixels.shape[:2]
    if size == (width, height):
        parts = (pixels.transpose(0, 2, 1), alpha(slice(height))[:, None])
        return np.concatenate(parts, axis=1, dtype=np.float32)
    rows = np.empty((4, height, size[0]), np.float32)
    for band in bands(height, width):
        for plane, into in zip((*np.moveaxis(pixels[band], -1, 0), alpha(band)), rows[:, band], strict=True):
            part = Image.fromarray(np.ascontiguousarray(plane, np.float32))
            into[:] = part.resize((size[0], part.height), Image.Resampling.BOX)
    planes = (Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in rows)
    return np.stack([np.asarray(plane) for plane in planes], axis=1)


def _widened(rows: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """``[height, channels, columns]`` as ``[height, width, channels]``, bilinearly along each row."""
    values = np.ascontiguousarray(rows.transpose(0, 2, 1))
    if rows.shape[2] == width:
        return values
    return between(values, *neighbours(np.arange(width), width, rows.shape[2]), axis=1)
