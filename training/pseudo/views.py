"""Several views of one image, and their maps brought back to its grid."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, NormalsTask, TaskSpec
from mtcp_serve.kinds.base import Map


@dataclass(frozen=True)
class View:
    """A region of the image, its corner and side as shares of the image's sides, seen plain or mirrored."""

    top: float
    left: float
    side: float
    mirrored: bool

    @property
    def zoom(self) -> float:
        """How much larger things look than in the whole image."""
        return 1 / self.side

    def pixels(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """The region on a grid of ``size`` (H, W)."""
        (height, width), side = size, self.side
        rows = slice(math.floor(self.top * height), math.ceil((self.top + side) * height - 1e-6))
        columns = slice(math.floor(self.left * width), math.ceil((self.left + side) * width - 1e-6))
        return rows, columns


_SIDE = 0.8
VIEWS = (
    View(0, 0, 1, mirrored=False),
    View(0, 0, 1, mirrored=True),
    View(0, 0, _SIDE, mirrored=False),
    View(0, 1 - _SIDE, _SIDE, mirrored=True),
    View(1 - _SIDE, 0, _SIDE, mirrored=True),
    View(1 - _SIDE, 1 - _SIDE, _SIDE, mirrored=False),
)
"""The whole image and four overlapping crops, half of them mirrored: the middle is seen six times, the strips
along the sides at least four times, the corners three times."""


def look(
    image: NDArray[np.uint8], view: View, grid: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """What a network of input ``size`` (H, W) is shown of ``image`` [h, w, 3]: the view, stretched.

    The region is rounded to whole pixels of ``grid`` (H, W), on which its map will be put back.
    """
    rows, columns = view.pixels(grid)
    down, across = image.shape[0] / grid[0], image.shape[1] / grid[1]
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    seen = np.asarray(
        Image.fromarray(image).resize(
            (size[1], size[0]), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0
        )
    )
    return np.ascontiguousarray(seen[:, ::-1]) if view.mirrored else seen


def put_back(task: TaskSpec, values: Map, view: View, grid: tuple[int, int]) -> tuple[Map, NDArray[np.bool_]]:
    """A view's map on the image's ``grid`` (H, W), and which pixels it covers.

    A mirrored view is mirrored back, with it the x of normals. Metric depth is multiplied by the zoom: the
    project's networks are trained to answer a crop as if the camera had come closer.
    """
    if view.mirrored:
        values = values[:, ::-1].copy()
        if isinstance(task, NormalsTask):
            values = values * np.array([-1, 1, 1], np.float32)
    if isinstance(task, DepthTask) and task.metric:
        values = values * np.float32(view.zoom)
    region = view.pixels(grid)
    whole = np.zeros((*grid, *values.shape[2:]), values.dtype)
    covered = np.zeros(grid, bool)
    covered[region] = True
    whole[region] = task.resize(values, *covered[region].shape)
    return whole, covered
