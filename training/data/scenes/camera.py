"""A pinhole camera whose rays are scaled so that distance along them is depth."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_NEAR = 0.05
"""Depth in metres before which bounding spheres are not projected any more."""


@dataclass(frozen=True)
class Camera:
    """Where the image is taken from.

    Args:
        position: metres, [3].
        pitch: radians, positive looks up.
        yaw: radians, positive looks right.
        field: horizontal field of view, radians.
        size: (H, W) of the image; pixels are square and the optical axis goes through the centre.
    """

    position: Array
    pitch: float
    yaw: float
    field: float
    size: tuple[int, int]

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size[1] / 2 / math.tan(self.field / 2)

    @cached_property
    def axes(self) -> Array:
        """Rows [3, 3]: the directions right, up and forward in the world."""
        rise, level = math.sin(self.pitch), math.cos(self.pitch)
        aside, ahead = math.sin(self.yaw), math.cos(self.yaw)
        right, up = (ahead, 0.0, aside), (-aside * rise, level, ahead * rise)
        forward = (aside * level, rise, -ahead * level)
        return np.array([right, up, forward], np.float32)

    def rays(self) -> Array:
        """World directions [3, H, W] of the pixel centres, one metre of depth long.

        So ``position + depth * ray`` is the point a pixel shows, with depth along the optical axis.
        """
        height, width = self.size
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.focal
        y = -(np.arange(height, dtype=np.float32) + 0.5 - height / 2) / self.focal
        right, up, forward = self.axes
        column = (forward[:, None] + up[:, None] * y)[:, :, None]
        rays: Array = (column + (right[:, None] * x)[:, None, :]).astype(np.float32)
        return rays

    def window(self, centre: Array, radius: float) -> tuple[slice, slice]:
        """Rows and columns that a sphere can be seen in; all of them when it is too near to tell."""
        height, width = self.size
        x, y, depth = (float(value) for value in self.axes @ (centre - self.position))
        if not depth - radius > _NEAR:
            behind = depth + radius < 0
            return slice(0, 0 if behind else height), slice(0, width)
        rows = _span(-y, depth, radius, self.focal, height)
        return rows, _span(x, depth, radius, self.focal, width)


def _span(offset: float, depth: float, radius: float, focal: float, extent: int) -> slice:
    low, high = offset - radius, offset + radius
    first = extent / 2 + focal * low / (depth - radius if low < 0 else depth + radius)
    last = extent / 2 + focal * high / (depth - radius if high > 0 else depth + radius)
    return slice(max(0, math.floor(first)), min(extent, max(0, math.ceil(last))))
