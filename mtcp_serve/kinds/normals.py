"""``normals``: the direction that a surface faces."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from mtcp_serve.errors import InternalError
from mtcp_serve.kinds.base import Map, MapOut, TaskSpec, Text
from mtcp_serve.kinds.resample import bands, bilinear, covering, quantize

_CANCELLED = 1e-3  # a blend of normals this short has no direction left
_LENGTH_TOLERANCE = 1e-2


class NormalsOut(MapOut):
    """Unit surface normals. PNG: 8-bit RGB, ``round((n + 1) * 127.5)``."""

    kind: Literal["normals"] = "normals"
    frame: str = Field(description="Where the axes point.")


class NormalsTask(TaskSpec):
    """Unit surface normals; ``frame`` says in words where the axes point."""

    channels: ClassVar[tuple[int, ...]] = (3,)
    metadata: ClassVar[type[MapOut]] = NormalsOut
    criterion: ClassVar[str] = "the direction is within 22.5 degrees of the true one"

    kind: Literal["normals"] = "normals"
    dtype: Literal["float32", "float16"] = "float32"
    frame: Text
    trained_on: Text | None = None

    def inspect(self, values: Map) -> str:
        """Their length must be 1."""
        lengths = np.linalg.norm(values, axis=-1)
        if np.abs(lengths - 1).max() > _LENGTH_TOLERANCE:
            raise InternalError(
                f"normals have lengths from {lengths.min():.3g} to {lengths.max():.3g}, not 1"
            )
        return f"unit length; mean z {values[..., 2].mean():.2f}"

    def resample(self, values: Map, out: Map) -> None:
        """Bilinear and back to unit length; where opposite normals cancel out, the nearest one."""
        height, width = out.shape[:2]
        rows_at = bilinear(values.astype(np.float32, copy=False), height, width)
        above, left = covering(values.shape[0], height), covering(values.shape[1], width)
        for rows in bands(height, width):
            x, y, z = rows_at(rows)
            length = np.sqrt(x * x + y * y + z * z)
            lost = length < _CANCELLED
            if lost.any():
                down, across = np.nonzero(lost)
                nearest = values[above[rows][down], left[across]]
                x[lost], y[lost], z[lost] = nearest.T
                length[lost] = np.maximum(np.linalg.norm(nearest, axis=-1), _CANCELLED)
            inverse = 1 / length
            for axis, plane in enumerate((x, y, z)):  # numpy is slow along a last axis of three
                out[rows, :, axis] = np.multiply(plane, inverse, out=plane)

    def to_image(self, values: Map) -> Image.Image:
        """8-bit RGB."""
        return quantize(values, np.uint8, lambda v: np.rint((v + 1) * 127.5).clip(0, 255))

    @classmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        """Brought back to unit length."""
        vectors = pixels.astype(np.float32) / np.float32(127.5) - 1
        unit: Map = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        return unit

    def caption(self, values: Map) -> str:
        """The frame."""
        return self.frame
