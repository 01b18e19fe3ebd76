"""Depth as a surface, torn where one surface ends before another, with smooth contours there.

As ``mtcp_serve/server/web/mesh.js`` and ``rims.js`` build it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.inference.camera import Camera
from mtcp_serve.outputs.depth_edges import SharpDepth, sharpen
from mtcp_serve.outputs.points import Relief

_SETBACK: Final = 0.5  # pixels from a contour to the rim of the farther surface: those on it show both
_NEAREST: Final = 0.05  # of the way to the next pixel, that a contour comes to one
_SMOOTHINGS: Final = 4
_AROUND: Final = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, -1), (-1, 1), (1, 1), (-1, -1))


@dataclass(frozen=True)
class Mesh:
    """A surface: ``positions`` float32 ``[vertices, 3]`` and what belongs to them.

    ``places`` float32 ``[vertices, 2]`` are their places in the image, from 0 to 1, right and down.
    ``triangles`` uint32 ``[triangles, 3]`` run counter-clockwise as the camera sees them.
    ``confidence`` is as in `mtcp_serve.outputs.points.PointCloud`.
    """

    positions: NDArray[np.float32]
    places: NDArray[np.float32]
    triangles: NDArray[np.uint32]
    confidence: NDArray[np.float32] | None = None


def surface(relief: Relief, min_confidence: float | None = None) -> Mesh:
    """The surface of the depth map as the model gave it: one vertex per pixel, torn at depth edges.

    It has holes where the model is less sure of the depth than ``min_confidence``.

    Raises:
        InvalidParameterError: there is a ``min_confidence``, and the confidence is not known.
    """
    height, width = relief.raw.shape
    sure = relief.confidences(height, width, min_confidence)
    sharp = sharpen(relief.raw)
    if sure is not None and min_confidence is not None:
        sharp = SharpDepth(np.where(sure >= min_confidence, sharp.depths, np.float32(0)), sharp.middles)
    return build_mesh(sharp, relief.raw, relief.camera.resized(width, height), sure)


def build_mesh(
    sharp: SharpDepth,
    ramps: NDArray[np.float32],
    camera: Camera,
    confidence: NDArray[np.float32] | None = None,
) -> Mesh:
    """The surface of ``sharp`` without triangles at invalid depths or across edges.

    ``ramps`` are the depths before sharpening, ``[height, width]``, which tell where between two pixels an
    edge runs; the rims of the surface follow it.
    """
    height, width = ramps.shape
    triangles, left_out = _connect(sharp)
    used, lost = np.zeros(height * width, bool), np.zeros(height * width, bool)
    used[triangles.ravel()] = True
    lost[left_out.ravel()] = True
    rims = np.flatnonzero(used & lost)
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = np.stack([across, down], axis=-1).reshape(-1, 2)
    _smooth_rims(places, rims, ramps, sharp)
    renamed = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    places, depths = places[used], sharp.depths.ravel()[used]
    center = np.array([camera.cx, camera.cy], np.float32)
    focal = np.array([camera.fx, -camera.fy], np.float32)
    positions = np.empty((len(depths), 3), np.float32)
    positions[:, :2] = (places - center) / focal * depths[:, None]
    positions[:, 2] = -depths
    return Mesh(
        positions,
        np.divide(places + np.float32(0.5), [width, height], dtype=np.float32),
        renamed[triangles],
        None if confidence is None else confidence.ravel()[used],
    )


def _connect(sharp: SharpDepth) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The triangles whose corners are joined, and those left out.

    Where one corner of a square is on another surface, the other three form a triangle.
    """
    height, width = sharp.depths.shape
    index = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    triangles = np.stack([a, c, b, b, c, d], axis=-1)
    right, below = sharp.joined(0, 1), sharp.joined(1, 0)
    rising, falling = sharp.joined(1, -1), sharp.joined(1, 1)  # from b to c, and from a to d
    turned = falling & ~rising
    triangles[turned] = np.stack([each[turned] for each in (a, c, d, a, d, b)], axis=-1)
    ab, cd, ac, bd = right[:-1], right[1:], below[:, :-1], below[:, 1:]
    diagonal = rising | falling
    first = diagonal & ac & np.where(turned, cd, ab)
    second = diagonal & bd & np.where(turned, ab, cd)
    kept = np.stack([first, second], axis=-1).ravel()
    triangles = triangles.reshape(-1, 3)
    return triangles[kept], triangles[~kept]


def _smooth_rims(
    places: NDArray[np.float32], rims: NDArray[np.intp], ramps: NDArray[np.float32], sharp: SharpDepth
) -> None:
    """Move the vertices ``rims`` in ``places`` (pixels) to the contours between surfaces.

    A contour is where the depth before sharpening is the middle of both; then each vertex goes half way to
    the middle of its neighbours on the rim. Vertices of the picture's own border stay on it.
    """
    height, width = ramps.shape
    rows, columns = np.divmod(rims, width)
    inside = np.stack([(columns > 0) & (columns < width - 1), (rows > 0) & (rows < height - 1)], axis=-1)
    places[rims] += np.where(inside, _to_contour(rims, ramps, sharp), 0)
    inner = np.flatnonzero(inside.all(axis=1))
    of = np.full(height * width, -1)
    of[rims] = np.arange(len(rims))
    at = rims[inner]
    others = np.stack([at + down * width + across for down, across in _AROUND], axis=-1)
    known = (of[others] >= 0) & _joined(sharp, at[:, None], others)
    many = known.sum(axis=1) >= 2
    at, others, known = at[many], others[many], known[many][..., None]
    count = known.sum(axis=1)
    for _ in range(_SMOOTHINGS):
        middle = np.where(known, places[others], 0).sum(axis=1, dtype=np.float64) / count
        places[at] = (places[at] + middle) / 2


def _to_contour(rims: NDArray[np.intp], ramps: NDArray[np.float32], sharp: SharpDepth) -> NDArray[np.float64]:
    """The ways (across, down) from vertices to the lines along which edges run between them and others."""
    height, width = ramps.shape
    rows, columns = np.divmod(rims, width)
    depths, middles = ramps.ravel().astype(np.float64), sharp.middles.ravel().astype(np.float64)
    normals = np.zeros((len(rims), 2))
    for down, across in _AROUND[:4]:
        row, column = rows + down, columns + across
        within = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = rims[within]
        other = at + down * width + across
        torn = (sharp.depths.ravel()[other] > 0) & ~_joined(sharp, at, other)
        at, other = at[torn], other[torn]
        here, there = middles[at], middles[other]
        middle = np.where((here > 0) & (there > 0), np.sqrt(here * there), np.maximum(here, there))
        before, behind = np.abs(np.log(middle / depths[at])), np.abs(np.log(middle / depths[other]))
        share = np.divide(before, before + behind, out=np.full(len(at), 0.5), where=before + behind > 0)
        way = (across + down) / np.clip(share, _NEAREST, 1 - _NEAREST)
        normals[np.flatnonzero(within)[torn], 0 if across else 1] += way
    length = np.hypot(normals[:, 0], normals[:, 1])
    farther = (middles[rims] > 0) & (sharp.depths.ravel()[rims] >= middles[rims])
    furthest = 1 - _NEAREST  # which the sum of opposite edges does not know
    ways = np.minimum(np.divide(1, length, out=np.zeros_like(length), where=length > 0), furthest)
    ways -= _SETBACK * farther
    normals *= np.divide(ways, length, out=np.zeros_like(length), where=length > 0)[:, None]
    return normals


def _joined(sharp: SharpDepth, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.bool_]:
    """`SharpDepth.joined`, of pixels by their flat indices."""
    one, other = np.broadcast_arrays(one, other)
    depths, middles = sharp.depths.ravel(), sharp.middles.ravel()
    return sharp.join(depths[one], depths[other], middles[one], middles[other])
