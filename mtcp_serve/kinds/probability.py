"""``probability``: how likely each pixel is part of something."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.kinds.base import Map, MapOut, TaskSpec, TensorType, Text, in_range
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.kinds.resample import bands, quantize

_CERTAIN = 1e-4  # probabilities are kept so far from 0 and 1 where logits are taken of them


class ProbabilityOut(MapOut):
    """A probability per pixel. PNG: 8-bit grey, ``round(255 * p)``."""

    kind: Literal["probability"] = "probability"
    range: tuple[float, float] = (0.0, 1.0)


class ProbabilityTask(TaskSpec):
    """A probability per pixel, 0 to 1; with dtype ``uint8`` the graph gives ``round(255 * p)``."""

    metadata: ClassVar[type[MapOut]] = ProbabilityOut
    criterion: ClassVar[str] = "the value is on the true side of one half"

    kind: Literal["probability"] = "probability"
    dtype: TensorType = "float32"
    trained_on: Text | None = None

    def to_map(self, array: NDArray[Any]) -> Map:
        """What comes as uint8 comes back to 0 to 1."""
        values = array.astype(np.float32, copy=False)
        return values / np.float32(255) if array.dtype == np.uint8 else values

    def inspect(self, values: Map) -> str:
        """They must be between 0 and 1."""
        return in_range(values, 0, 1, "")

    def refine(self, values: Map, guide: Guide, out: Map) -> None:
        """By their logits: what is sure stays sure, and a soft edge becomes as sharp as that of the image."""
        sure = values.astype(np.float32, copy=False).clip(_CERTAIN, 1 - _CERTAIN)
        enlarged = guide.along([np.log(sure / (1 - sure))])
        for rows in bands(*out.shape):
            logits = enlarged.at(rows, 0)
            np.exp(np.negative(logits, out=logits), out=logits)
            np.reciprocal(np.add(logits, 1, out=logits), out=out[rows])

    def refines(self, values: Map) -> bool:
        """Always."""
        return True

    def to_image(self, values: Map) -> Image.Image:
        """8-bit grey."""
        return quantize(values, np.uint8, lambda v: np.rint(v * 255).clip(0, 255))

    @classmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        """255 is certain."""
        return pixels.astype(np.float32) / np.float32(255)

    def caption(self, values: Map) -> str:
        """The mean."""
        return f"{values.mean():.0%} of the picture"
