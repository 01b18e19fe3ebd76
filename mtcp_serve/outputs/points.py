"""Depth as geometry: points in space with colours and normals.

Everything is in the frame of `mtcp_serve.inference.camera` (x right, y up, z towards the camera,
right-handed, the camera at the origin) and in the unit of the depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import DepthTask, Map, NormalsTask, TaskSpec
from mtcp_serve.kinds.resample import nearest
from mtcp_serve.outputs.depth_edges import sharpen

MOST_POINTS: Final = 4_000_000
"""More are refused: a point takes 27 bytes in a PLY file."""
USUAL_POINTS: Final = 1_000_000
"""About as many as there are where no ``step`` is named."""


@dataclass(frozen=True)
class PointCloud:
    """``positions`` and unit ``normals`` float32 ``[points, 3]``, ``colors`` uint8 ``[points, 3]`` RGB.

    ``confidence`` float32 ``[points]``, 0 to 1, is how sure the model is of the depth, where that is known.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colors: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Relief:
    """A depth map and what geometry needs beside it; its callables take a height and a width (pixels)."""

    task: TaskSpec
    raw: NDArray[np.float32]
    """The depths as the model gave them: edges are sharpest there."""
    height: int
    """Of the map asked for, pixels, as is the width."""
    width: int
    camera: Camera
    colors: Callable[[int, int], NDArray[np.uint8]]
    """The image, ``[height, width, 3]`` RGB."""
    directions: Callable[[int, int], NDArray[np.float32]] | None
    """The normals map, ``[height, width, 3]``, where there is one."""
    confidence: Callable[[int, int], NDArray[np.float32]] | None = None
    """How sure the model is of the depth, ``[height, width]``, where that is known."""

    @classmethod
    def of(cls, found: DenseMaps) -> Self:
        """The relief of a prediction's first depth map.

        Raises:
            ValueError: there is none.
        """
        depth = depth_of(found)
        normals = found.first(NormalsTask)
        return cls(
            depth.task,
            depth.raw.astype(np.float32, copy=False),
            depth.height,
            depth.width,
            found.camera,
            lambda height, width: pixels_of(found, height, width),
            None if normals is None else partial(sized, normals.task, normals.raw),
            None if depth.confidence is None else partial(sized, depth.confidence.task, depth.confidence.raw),
        )

    def confidences(self, height: int, width: int, least: float | None) -> NDArray[np.float32] | None:
        """`confidence`, for who leaves out what is less sure than ``least``.

        Raises:
            InvalidParameterError: there is a ``least``, and the confidence is not known.
        """
        if self.confidence is not None:
            return self.confidence(height, width)
        if least is not None:
            raise InvalidParameterError(
                f"min_confidence needs to know how sure the model is of {self.task.name}",
                "ask for the confidence, of a model that has it",
            )
        return None

    def depths(self, height: int, width: int, edges: bool) -> NDArray[np.float32]:
        """The depths at ``height`` x ``width`` pixels, sharpened at edges, unless ``edges``."""
        if edges:
            return sized(self.task, self.raw, height, width)
        sharp = sharpen(self.raw)
        values = sized(self.task, sharp.depths, height, width)
        return np.where(nearest(sharp.rims(), height, width), nearest(sharp.depths, height, width), values)


def estimate_normals(positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit normals ``[height, width, 3]`` of the surface through a grid of points, towards the camera."""
    if min(positions.shape[:2]) < 2:
        return np.broadcast_to(np.array([0, 0, 1], np.float32), positions.shape)
    down, across = np.gradient(positions, axis=(0, 1))
    normals = np.cross(-down, across)
    normals *= -np.sign(np.einsum("hwc,hwc->hw", normals, positions))[..., None]  # as seen from the origin
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    found: NDArray[np.float32] = np.where(length > 0, normals / np.maximum(length, 1e-12), (0, 0, 1))
    return found.astype(np.float32)


def point_cloud(
    relief: Relief, step: int | None = None, edges: bool = False, min_confidence: float | None = None
) -> PointCloud:
    """A point for every ``step``-th pixel of the map, across and down, that has a valid depth.

    Without ``step`` it is the least that gives no more than `USUAL_POINTS`. At depth edges points are on
    either surface (`sharpen`), or with ``edges`` wherever the network has them. Normals are those of the
    normals map, or else of the surface itself. Points that the model is less sure of than ``min_confidence``
    are left out.

    Raises:
        InvalidParameterError: ``step`` is less than 1, there would be more than `MOST_POINTS`, or the
            confidence is not known.
    """
    if step is not None and not step >= 1:
        raise InvalidParameterError(f"step is {step}, it must be at least 1")
    if step is None:
        step = max(ceil(sqrt(relief.height * relief.width / USUAL_POINTS)), 1)
    height, width = max(round(relief.height / step), 1), max(round(relief.width / step), 1)
    if height * width > MOST_POINTS:
        fits = ceil(sqrt(relief.height * relief.width / MOST_POINTS))
        raise InvalidParameterError(
            f"step={step} gives {height * width} points, the limit is {MOST_POINTS}", f"step={fits} fits"
        )
    sure = relief.confidences(height, width, min_confidence)
    values = relief.depths(height, width, edges)
    positions = relief.camera.resized(width, height).unproject(values)
    normals = estimate_normals(positions) if relief.directions is None else relief.directions(height, width)
    kept = values > 0
    if sure is not None and min_confidence is not None:
        kept &= sure >= min_confidence
    return PointCloud(
        positions[kept],
        normals[kept],
        relief.colors(height, width)[kept],
        None if sure is None else sure[kept],
    )


def depth_of(prediction: DenseMaps) -> DenseMap:
    """The prediction's first depth map.

    Raises:
        ValueError: there is none.
    """
    dense = prediction.first(DepthTask)
    if dense is None:
        raise ValueError("the prediction has no depth map")
    return dense


def unit_of(depth: DenseMap) -> str:
    """The unit of a depth map: ``m`` or ``relative``."""
    return depth.task.unit if isinstance(depth.task, DepthTask) else "relative"


def geometry_tasks(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Those of ``tasks`` that geometry is made of: the first depth and the first normals."""
    found = (kind.first_of(tasks) for kind in (DepthTask, NormalsTask))
    return [task for task in found if task is not None]


def pixels_of(prediction: DenseMaps, height: int, width: int) -> NDArray[np.uint8]:
    """The image at ``[height, width, 3]`` uint8 RGB.

    Raises:
        ValueError: the prediction was not told to keep it.
    """
    if prediction.decoded is None:
        raise ValueError("the prediction has no image: tell predict to keep it")
    return prediction.decoded.resized(height, width)


def sized(task: TaskSpec, values: Map, height: int, width: int) -> NDArray[np.float32]:
    """``values`` at ``height`` x ``width`` pixels, as float32."""
    return task.resize(values, height, width).astype(np.float32, copy=False)
