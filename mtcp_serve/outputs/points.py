"""Depth as geometry: points in space with colours and normals, and a surface torn where depth jumps.

Everything is in the frame of `mtcp_serve.inference.camera` (x right, y up, z towards the camera,
right-handed, the camera at the origin) and in the unit of the depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, radians, sqrt, tan
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import DepthTask, Map, NormalsTask, TaskSpec

MOST_POINTS: Final = 4_000_000
"""More are refused: a point takes 27 bytes in a PLY file."""
USUAL_POINTS: Final = 1_000_000
"""About as many as there are where no ``step`` is named."""
T = TypeVar("T", bound=np.generic)
_REACH, _ROUNDS = 6, 2  # of sharpening: a ramp of a dozen pixels
_STEEPEST: Final = tan(radians(82))  # depth change over width, of what is still taken for a surface


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
class Mesh:
    """A surface: ``positions`` float32 ``[vertices, 3]`` and what belongs to them.

    ``places`` float32 ``[vertices, 2]`` are their places in the image, from 0 to 1, right and down.
    ``triangles`` uint32 ``[triangles, 3]`` run counter-clockwise as the camera sees them.
    ``confidence`` is as in `PointCloud`.
    """

    positions: NDArray[np.float32]
    places: NDArray[np.float32]
    triangles: NDArray[np.uint32]
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Relief:
    """A depth map and what geometry needs beside it; both callables take a height and a width (pixels)."""

    task: TaskSpec
    raw: NDArray[np.float32]
    """The depths as the model gave them: jumps are sharpest there."""
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
        normals = next((dense for dense in found.maps if isinstance(dense.task, NormalsTask)), None)
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

    def sharpened(self) -> NDArray[np.float32]:
        """`raw`, by `sharpen`."""
        return sharpen(self.raw, self.camera.resized(self.raw.shape[1], self.raw.shape[0]))

    def depths(self, height: int, width: int, ramps: bool) -> NDArray[np.float32]:
        """The depths at ``height`` x ``width`` pixels; at jumps those of `sharpened`, unless ``ramps``."""
        values = sized(self.task, self.raw, height, width)
        if ramps:
            return values
        sharp = self.sharpened()
        jumps = (sharp != self.raw) | find_jumps(sharp, self.camera.resized(sharp.shape[1], sharp.shape[0]))
        return np.where(nearest(jumps, height, width), nearest(sharp, height, width), values)


def find_jumps(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.bool_]:
    """True where the depth jumps to one of the eight neighbours.

    A jump is a change of depth that a surface would have only if seen at less than 8 degrees. Next to an
    invalid depth there is none.
    """
    least, most = _extremes(depth, 1)
    jumps: NDArray[np.bool_] = (least > 0) & (most - least > 2 * _jump(least, camera))
    return jumps


def sharpen(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """The depth without the ramps that a network draws between two surfaces.

    A pixel at a jump goes to that of the two depths, the least and the most around it, which it is nearer to
    (the toggle mapping of Kramer and Bruckner, 1975); the others stay as they are. Points of the ramp would
    hang in the air, and to leave them out would cost the rim of the nearer surface.
    """
    for _ in range(_ROUNDS):
        least, most = _extremes(depth, _REACH)
        nearer = np.where(depth - least < most - depth, least, most)
        depth = np.where(find_jumps(depth, camera) & (least > 0), nearer, depth)
    return depth


def _jump(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """The most that the depth of a surface changes from a pixel to the next."""
    return np.multiply(depth, _STEEPEST / min(camera.fx, camera.fy), dtype=np.float32)


def _extremes(depth: NDArray[np.float32], reach: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The least and the most within ``reach`` pixels, across and down."""
    found = []
    for best in (np.minimum, np.maximum):
        values = depth
        for axis in (0, 1):
            length = values.shape[axis]
            padded = np.pad(values, [(reach, reach) if each == axis else (0, 0) for each in (0, 1)], "edge")
            shifted = [padded.take(range(at, at + length), axis) for at in range(2 * reach + 1)]
            values = best.reduce(shifted)
        found.append(values)
    return found[0], found[1]


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
    relief: Relief, step: int | None = None, ramps: bool = False, min_confidence: float | None = None
) -> PointCloud:
    """A point for every ``step``-th pixel of the map, across and down, that has a valid depth.

    Without ``step`` it is the least that gives no more than `USUAL_POINTS`. At jumps of the depth points are
    on either surface (`sharpen`), or with ``ramps`` wherever the network has them. Normals are those of the
    normals map, or else of the surface itself. Points that the model is less sure of than ``min_confidence``
    are left out.

    Raises:
        InvalidParameterError: there would be more than `MOST_POINTS`, or the confidence is not known.
    """
    if step is None:
        step = max(ceil(sqrt(relief.height * relief.width / USUAL_POINTS)), 1)
    height, width = max(round(relief.height / step), 1), max(round(relief.width / step), 1)
    if height * width > MOST_POINTS:
        fits = ceil(sqrt(relief.height * relief.width / MOST_POINTS))
        raise InvalidParameterError(
            f"step={step} gives {height * width} points, the limit is {MOST_POINTS}", f"step={fits} fits"
        )
    sure = relief.confidences(height, width, min_confidence)
    values = relief.depths(height, width, ramps)
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


def surface(relief: Relief, min_confidence: float | None = None) -> Mesh:
    """The surface of the depth map as the model gave it: one vertex per pixel, torn where depth jumps.

    It has holes where the model is less sure of the depth than ``min_confidence``.

    Raises:
        InvalidParameterError: there is a ``min_confidence``, and the confidence is not known.
    """
    height, width = relief.raw.shape
    sure = relief.confidences(height, width, min_confidence)
    depth = relief.sharpened()
    if sure is not None and min_confidence is not None:
        depth = np.where(sure >= min_confidence, depth, np.float32(0))
    return build_mesh(depth, relief.camera.resized(width, height), sure)


def build_mesh(
    depth: NDArray[np.float32], camera: Camera, confidence: NDArray[np.float32] | None = None
) -> Mesh:
    """The surface of ``depth`` (``[height, width]``) without triangles at invalid depths or across jumps."""
    height, width = depth.shape
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2).reshape(-1, 3)
    corners = depth.ravel()[triangles]
    least, most = corners.min(axis=1), corners.max(axis=1)
    triangles = triangles[(least > 0) & (most - least <= 2 * _jump(least, camera))]
    used = np.zeros(height * width, bool)
    used[triangles.ravel()] = True
    renamed = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    places = np.stack([across, down], axis=-1).astype(np.float32).reshape(-1, 2)
    return Mesh(
        camera.unproject(depth).reshape(-1, 3)[used],
        places[used],
        renamed[triangles],
        None if confidence is None else confidence.ravel()[used],
    )


def depth_of(prediction: DenseMaps) -> DenseMap:
    """The prediction's first depth map.

    Raises:
        ValueError: there is none.
    """
    for dense in prediction.maps:
        if isinstance(dense.task, DepthTask):
            return dense
    raise ValueError("the prediction has no depth map")


def unit_of(depth: DenseMap) -> str:
    """The unit of a depth map: ``m`` or ``relative``."""
    return depth.task.unit if isinstance(depth.task, DepthTask) else "relative"


def geometry_tasks(tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Those of ``tasks`` that geometry is made of: the first depth and the first normals."""
    kinds = (DepthTask, NormalsTask)
    found = [next((task for task in tasks if isinstance(task, kind)), None) for kind in kinds]
    return [task for task in found if task is not None]


def pixels_of(prediction: DenseMaps, height: int, width: int) -> NDArray[np.uint8]:
    """The image at ``[height, width, 3]`` uint8 RGB.

    Raises:
        ValueError: the prediction was not told to keep it.
    """
    if prediction.decoded is None:
        raise ValueError("the prediction has no image: tell predict to keep it")
    return prediction.decoded.resized(height, width)


def nearest(values: NDArray[T], height: int, width: int) -> NDArray[T]:
    """``values`` at ``height`` x ``width``: each pixel has the value of the one that covers its middle."""
    rows = (np.arange(height) * 2 + 1) * values.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * values.shape[1] // (2 * width)
    found: NDArray[T] = values[rows[:, None], columns]
    return found


def sized(task: TaskSpec, values: Map, height: int, width: int) -> NDArray[np.float32]:
    """``values`` at ``height`` x ``width`` pixels, as float32."""
    return task.resize(values, height, width).astype(np.float32, copy=False)
