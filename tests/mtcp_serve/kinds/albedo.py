"""A kind of task that is not the project's: albedo, three channels between 0 and 1."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.kinds.base import Map, MapOut, TaskSpec, Text, in_range
from mtcp_serve.kinds.resample import quantize


class AlbedoOut(MapOut):
    """Reflected share of red, green and blue. PNG: 8-bit RGB, ``round(255 * value)``."""

    kind: Literal["albedo"] = "albedo"
    light: str


class AlbedoTask(TaskSpec):
    """How much of the light a surface reflects, by channel, 0 to 1."""

    channels: ClassVar[tuple[int, ...]] = (3,)
    metadata: ClassVar[type[MapOut]] = AlbedoOut

    kind: Literal["albedo"] = "albedo"
    dtype: Literal["float32"] = "float32"
    light: Text

    def inspect(self, values: Map) -> str:
        return in_range(values, 0, 1, "")

    def to_image(self, values: Map) -> Image.Image:
        return quantize(values, np.uint8, lambda v: np.rint(v * 255).clip(0, 255))

    @classmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        return pixels.astype(np.float32) / np.float32(255)

    def caption(self, values: Map) -> str:
        return f"under {self.light}"
