"""Depth as geometry: points in space with colours and normals, and a surface torn where depth jumps.

Everything is in the frame of `mtcp_serve.inference.camera` (x right, y up, z towards the camera,
right-handed, the camera at the origin) and in the unit of the depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, radians, sqrt, tan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.camera import Camera
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import DepthTask, NormalsTask, TaskSpec

MOST_POINTS: Final = 4_000_000
"""More are refused: a point takes 27 bytes in a PLY file."""
USUAL_POINTS: Final = 1_000_000
"""About as many as there are where no ``step`` is named."""
_STEEPEST: Final = tan(radians(82))  # depth change over width, of what is still taken for a surface


@dataclass(frozen=True)
class PointCloud:
    """``positions`` and unit ``normals`` float32 ``[points, 3]``, ``colors`` uint8 ``[points, 3]`` RGB."""

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colors: NDArray[np.uint8]


@dataclass(frozen=True)
class Mesh:
    """A surface: ``positions`` float32 ``[vertices, 3]`` and what belongs to them.

    ``places`` float32 ``[vertices, 2]`` are their places in the image, from 0 to 1, right and down.
    ``triangles`` uint32 ``[triangles, 3]`` run counter-clockwise as the camera sees them.
    """

    positions: NDArray[np.float32]
    places: NDArray[np.float32]
    triangles: NDArray[np.uint32]


def find_edges(depth: NDArray[np.float32], camera: Camera) -> NDArray[np.bool_]:
    """True where no surface can be told: invalid depth, or a jump to one of the eight neighbours.

    A jump is a change of depth that a surface would have only if seen at less than 8 degrees.
    """
    padded = np.pad(depth, 1, mode="edge")
    least, most = _extremes(_extremes((padded, padded), 0), 1)
    width_of_pixel = least / min(camera.fx, camera.fy)
    torn: NDArray[np.bool_] = (least <= 0) | (most - least > 2 * _STEEPEST * width_of_pixel)
    return torn


def _extremes(
    values: tuple[NDArray[np.float32], NDArray[np.float32]], axis: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The least and the most of three in a row along ``axis``, which loses its ends."""

    def three(array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        length = array.shape[axis] - 2
        return [array.take(range(start, start + length), axis) for start in range(3)]

    least, most = three(values[0]), three(values[1])
    return np.minimum(np.minimum(*least[:2]), least[2]), np.maximum(np.maximum(*most[:2]), most[2])


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


def point_cloud(prediction: DenseMaps, step: int | None = None, edges: bool = False) -> PointCloud:
    """A point for every ``step``-th pixel of the maps, across and down, that has a valid depth.

    Without ``step`` it is the least that gives no more than `USUAL_POINTS`. Points at jumps of the depth,
    which hang between two surfaces, are left out unless ``edges``. Normals are those of the normals map, or
    else of the surface itself.

    Raises:
        InvalidParameterError: there would be more than `MOST_POINTS`.
        ValueError: the prediction has no depth, or was not told to keep its photo.
    """
    depth = depth_of(prediction)
    if step is None:
        step = max(ceil(sqrt(depth.height * depth.width / USUAL_POINTS)), 1)
    height, width = max(round(depth.height / step), 1), max(round(depth.width / step), 1)
    if height * width > MOST_POINTS:
        fits = ceil(sqrt(depth.height * depth.width / MOST_POINTS))
        raise InvalidParameterError(
            f"step={step} gives {height * width} points, the limit is {MOST_POINTS}", f"step={fits} fits"
        )
    camera = prediction.camera.resized(width, height)
    values = _sized(depth, height, width)
    positions = camera.unproject(values)
    directions = next((dense for dense in prediction.maps if isinstance(dense.task, NormalsTask)), None)
    normals = estimate_normals(positions) if directions is None else _sized(directions, height, width)
    kept = values > 0
    if not edges:
        kept &= ~_stretch(_model_edges(depth, prediction.camera), height, width)
    colors = photo_of(prediction, height, width)
    return PointCloud(positions[kept], normals[kept].astype(np.float32), colors[kept])


def surface(prediction: DenseMaps) -> Mesh:
    """The surface of the depth map as the model gave it: a vertex a pixel, torn where depth jumps.

    Raises:
        ValueError: the prediction has no depth.
    """
    depth = depth_of(prediction)
    height, width = depth.raw.shape
    camera = prediction.camera.resized(width, height)
    return build_mesh(depth.raw.astype(np.float32), camera, _model_edges(depth, prediction.camera))


def build_mesh(depth: NDArray[np.float32], camera: Camera, torn: NDArray[np.bool_]) -> Mesh:
    """The surface of ``depth`` (``[height, width]``) without the pixels that are ``torn``."""
    height, width = depth.shape
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.stack([np.stack([a, c, b], -1), np.stack([b, c, d], -1)], axis=2).reshape(-1, 3)
    triangles = triangles[~torn.ravel()[triangles].any(axis=1)]
    used = np.zeros(height * width, bool)
    used[triangles.ravel()] = True
    renamed = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    places = np.stack([across, down], axis=-1).astype(np.float32).reshape(-1, 2)
    return Mesh(camera.unproject(depth).reshape(-1, 3)[used], places[used], renamed[triangles])


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


def photo_of(prediction: DenseMaps, height: int, width: int) -> NDArray[np.uint8]:
    """The photo at ``[height, width, 3]`` uint8 RGB.

    Raises:
        ValueError: the prediction was not told to keep it.
    """
    if prediction.photo is None:
        raise ValueError("the prediction has no photo: tell predict to keep it")
    return prediction.photo.resized(height, width)


def _sized(dense: DenseMap, height: int, width: int) -> NDArray[np.float32]:
    return dense.task.resize(dense.raw, height, width).astype(np.float32, copy=False)


def _model_edges(depth: DenseMap, camera: Camera) -> NDArray[np.bool_]:
    """The edges where they are sharp: at the model's size."""
    height, width = depth.raw.shape
    return find_edges(depth.raw.astype(np.float32, copy=False), camera.resized(width, height))


def _stretch(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """``mask`` at ``height`` x ``width``: each pixel has the value of the one that covers its middle."""
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    found: NDArray[np.bool_] = mask[rows[:, None], columns]
    return found
