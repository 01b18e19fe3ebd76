"""Enlarging maps along the edges of their image.

The fast guided filter (He and Sun, arXiv 1505.00996) with a colour guide (He, Sun and Tang, "Guided Image
Filtering", TPAMI 2013, equations 14 to 16): in a window of a coarse grid a map is taken for a linear function
of the colour, and these functions, interpolated, are evaluated on the image at full size. As in
`training.guided_filter` they are not averaged once more, which keeps edges crisper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.kinds.grids import between, neighbours, window_means

Plane = NDArray[np.float32]
RADIUS: Final = 2
"""Of the windows, pixels of the grid, which is half as fine as the map."""
EPSILON: Final = 1e-3
"""What a variance of colour (0 to 1) must exceed to count as an edge, where nothing else is said."""
_MIDDLE = np.float32(127.5)  # products of what is around zero are exact enough in single precision


class Guide:
    """An image that maps are enlarged along. Threads may share it."""

    def __init__(self, read: Callable[[], NDArray[np.uint8]]) -> None:
        """``read`` gives its pixels, ``[height, width, 3]`` RGB, when they are needed for the first time."""
        self._read = read
        self._known: dict[tuple[tuple[int, int], float], _Colors] = {}
        self._one_at_a_time = Lock()

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        return self._read()

    def along(self, planes: Sequence[Plane], epsilon: float = EPSILON) -> "Enlarged":
        """``planes`` at the size of the image, to be evaluated part by part.

        Each is linear in its plane, and may go a little beyond its range.

        Args:
            planes: maps ``[h, w]`` of one size, of any scale.
            epsilon: see `EPSILON`.
        """
        with self._one_at_a_time:
            pixels = self._pixels
            height, width = pixels.shape[:2]
            rows, columns = planes[0].shape
            size = max(min(columns, width) // 2, 1), max(min(rows, height) // 2, 1)
            colors = self._colors(size, epsilon)
        coarse = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in planes]
        return Enlarged(pixels, colors.linear_functions(np.stack(coarse, axis=1)))

    def _colors(self, size: tuple[int, int], epsilon: float) -> "_Colors":
        if (size, epsilon) not in self._known:
            grid = Image.fromarray(self._pixels).resize(size, Image.Resampling.BOX)
            self._known[size, epsilon] = _Colors.of(np.asarray(grid, np.float32), epsilon * 255**2)
        return self._known[size, epsilon]


class Enlarged:
    """Maps at the size of their image, which are evaluated part by part."""

    def __init__(self, pixels: NDArray[np.uint8], functions: Plane) -> None:
        """``functions`` ``[h, 4, C, w]``: three slopes and an offset for each pixel of a grid, of C maps."""
        self._pixels, self._functions = pixels, functions
        self.grid = functions.shape[0], functions.shape[3]
        """Height and width of the grid."""
        height, width = pixels.shape[:2]
        self._down = neighbours(np.arange(height), height, self.grid[0])
        self._across = neighbours(np.arange(width), width, self.grid[1])

    def at(self, rows: slice, plane: int, columns: slice = slice(None)) -> Plane:
        """Some rows of a map, of all columns or some, float32."""
        above, below = self._down[0][rows], self._down[1][rows]
        left, right = self._across[0][columns], self._across[1][columns]
        first, last = above[0], min(above[-1] + 2, len(self._functions))
        there = self._functions[first:last, :, plane]
        weights = np.zeros((len(above), last - first), np.float32)
        row = np.arange(len(above))
        weights[row, above - first] = 1 - below
        row = row[below > 0]
        weights[row, above[row] - first + 1] = below[row]
        wide = between(there, left, right, axis=2)
        here = (weights @ wide.reshape(last - first, -1)).reshape(len(above), 4, len(left))
        found: Plane = here[:, 3]
        for channel in range(3):
            here[:, channel] *= self._pixels[rows, columns, channel]
            found += here[:, channel]
        return found


@dataclass(frozen=True)
class _Colors:
    """The colours of a grid and what is known of them in each window."""

    planes: Plane
    """Red, green and blue less `_MIDDLE`, ``[h, 3, w]``."""
    means: Plane
    """Of them in the windows, of the same shape."""
    inverse: tuple[Plane, ...]
    """Of their covariances, to which the ridge is added: the six different elements, row by row."""

    @classmethod
    def of(cls, colors: NDArray[np.float32], ridge: float) -> "_Colors":
        """Those of the image ``[h, w, 3]`` of the grid."""
        planes = np.ascontiguousarray(colors.transpose(0, 2, 1)) - _MIDDLE
        ridges: Plane = np.eye(3, dtype=np.float32) * np.float32(ridge)
        pairs = [(one, other) for one in range(3) for other in range(one, 3)]
        products = np.stack([planes[:, one] * planes[:, other] for one, other in pairs], axis=1)
        found = window_means(np.concatenate([planes, products], axis=1), RADIUS)
        means = found[:, :3]
        a, b, c, d, e, f = (
            found[:, 3 + at] - means[:, one] * means[:, other] + ridges[one, other]
            for at, (one, other) in enumerate(pairs)
        )
        first = d * f - e * e, c * e - b * f, b * e - c * d
        rest = a * f - c * c, b * c - a * e, a * d - b * b
        scale = 1 / (a * first[0] + b * first[1] + c * first[2])
        return cls(planes, means, tuple(element * scale for element in (*first, *rest)))

    def linear_functions(self, values: Plane) -> Plane:
        """Three slopes and an offset, ``[h, 4, C, w]``, for each pixel of C maps ``[h, C, w]``."""
        height, _, width = values.shape
        level = values.mean(axis=(0, 2), keepdims=True)
        values = values - level
        products = self.planes[:, :, None] * values[:, None]
        together = np.concatenate([values[:, None], products], axis=1)
        found = window_means(together.reshape(height, -1, width), RADIUS).reshape(together.shape)
        mean, means = found[:, 0], self.means[:, :, None]
        red, green, blue = np.moveaxis(found[:, 1:] - means * found[:, :1], 1, 0)
        a, b, c, d, e, f = (element[:, None] for element in self.inverse)
        slopes = np.stack(
            [a * red + b * green + c * blue, b * red + d * green + e * blue, c * red + e * green + f * blue],
            axis=1,
        )
        offset = level + mean - (slopes * (means + _MIDDLE)).sum(axis=1)
        return np.concatenate([slopes, offset[:, None]], axis=1)
