"""Bringing a map to another size without inventing values: each kind has its rule."""

from collections.abc import Iterator
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec
from mtcp_serve.kinds.base import Map

Rule = Literal["none", "nearest", "bilinear"]

_WHOLE = 1 - 1e-5  # a blend with this much valid weight has met no invalid pixel, rounding aside
_CANCELLED = 1e-3  # a blend of normals this short has no direction left
_BAND = 2**16  # pixels worked on at a time, so that intermediate values stay in the processor's cache


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that together cover ``height``, each of about 65,536 pixels."""
    step = max(_BAND // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def rule(task: TaskSpec, values: Map, height: int, width: int) -> Rule:
    """How `resize_map` brings ``values`` to ``height`` x ``width``."""
    if values.shape[:2] == (height, width):
        return "none"
    return "nearest" if isinstance(task, LabelsTask) else "bilinear"


def resize_map(task: TaskSpec, values: Map, height: int, width: int) -> Map:
    """``values`` (``[h, w]`` or ``[h, w, 3]``) at ``height`` x ``width`` pixels.

    Labels take the nearest pixel. Depth and probability are bilinear, but a depth whose neighbourhood holds
    an invalid pixel (0) takes the nearest one. Normals are bilinear and brought back to unit length.
    """
    if values.shape[:2] == (height, width):
        return values
    match task:
        case LabelsTask():
            return _resize(values, height, width, Image.Resampling.NEAREST)
        case DepthTask():
            return _resize_depth(values, height, width)
        case NormalsTask():
            return _resize_normals(values, height, width)
        case ProbabilityTask():
            return _resize(values, height, width, Image.Resampling.BILINEAR)
        case _ as unreachable:
            assert_never(unreachable)


def _resize(values: NDArray[Any], height: int, width: int, rule: Image.Resampling) -> Map:
    return np.asarray(Image.fromarray(values).resize((width, height), rule))


def _resize_depth(values: Map, height: int, width: int) -> Map:
    smooth = _resize(values, height, width, Image.Resampling.BILINEAR)
    valid = values > 0
    if valid.all():
        return smooth
    weight = _resize(valid.astype(np.float32), height, width, Image.Resampling.BILINEAR)
    nearest = _resize(values, height, width, Image.Resampling.NEAREST)
    return np.where(weight > _WHOLE, smooth, nearest)


def _resize_normals(values: Map, height: int, width: int) -> Map:
    """Channel by channel; where opposite normals cancel out, the nearest one."""
    smooth = np.empty((height, width, 3), np.float32)
    for axis in range(3):
        channel = np.ascontiguousarray(values[..., axis])
        smooth[..., axis] = _resize(channel, height, width, Image.Resampling.BILINEAR)
    for rows in bands(height, width):
        band = smooth[rows]
        length = np.sqrt(np.einsum("hwc,hwc->hw", band, band))
        lost = length < _CANCELLED
        if lost.any():
            down, across = np.nonzero(lost)
            nearest = values[
                (down + rows.start) * values.shape[0] // height, across * values.shape[1] // width
            ]
            band[lost] = nearest
            length[lost] = np.maximum(np.linalg.norm(nearest, axis=-1), _CANCELLED)
        band /= length[..., None]
    return smooth
