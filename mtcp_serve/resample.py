"""Bringing a map to another size without inventing values: each kind has its rule."""

from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec

Map = NDArray[np.uint8] | NDArray[np.float32]
Rule = Literal["none", "nearest", "bilinear"]

_WHOLE = 1 - 1e-5  # a blend with this much valid weight has met no invalid pixel, rounding aside


def resize_map(task: TaskSpec, values: Map, height: int, width: int) -> tuple[Map, Rule]:
    """``values`` (``[h, w]`` or ``[h, w, 3]``) at ``height`` x ``width`` pixels, and the rule that was used.

    Labels take the nearest pixel. Depth and probability are bilinear, but a depth whose neighbourhood holds
    an invalid pixel (0) takes the nearest one. Normals are bilinear and brought back to unit length.
    """
    if values.shape[:2] == (height, width):
        return values, "none"
    match task:
        case LabelsTask():
            return _resize(values, height, width, Image.Resampling.NEAREST), "nearest"
        case DepthTask():
            return _resize_depth(values, height, width), "bilinear"
        case NormalsTask():
            return _resize_normals(values, height, width), "bilinear"
        case ProbabilityTask():
            return _resize(values, height, width, Image.Resampling.BILINEAR), "bilinear"
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
    return np.where(weight > _WHOLE, smooth, nearest).astype(np.float32, copy=False)


def _resize_normals(values: Map, height: int, width: int) -> Map:
    """Channel by channel; opposite normals that cancel out take the nearest one instead."""
    smooth = np.empty((height, width, 3), np.float32)
    for axis in range(3):
        channel = np.ascontiguousarray(values[..., axis])
        smooth[..., axis] = _resize(channel, height, width, Image.Resampling.BILINEAR)
    length = np.sqrt(np.einsum("hwc,hwc->hw", smooth, smooth))
    lost = length < 1e-3
    if lost.any():
        rows, columns = np.nonzero(lost)
        source = values[rows * values.shape[0] // height, columns * values.shape[1] // width]
        smooth[lost] = source
        length[lost] = np.maximum(np.linalg.norm(source, axis=-1), 1e-3)
    smooth /= length[..., None]
    return smooth
