"""``depth``: distance along the optical axis."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, field_validator, model_validator

from mtcp_serve.kinds.base import Map, MapOut, TaskSpec, Text, in_range
from mtcp_serve.kinds.colormaps import DEFAULT, colormap
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.kinds.resample import bands, bilinear, nearest, quantize, resize

MILLIMETRE: Final = 0.001
"""Metres a step of a metric depth PNG."""
MOST_METRES: Final = 65.535
"""The farthest that such a PNG can say."""
FOV_X: Final = (0.001, 179.0)
"""Least and most field of view that a camera may be said to have, degrees."""
_WHOLE = 1 - 1e-5  # a blend with this much valid weight has met no invalid pixel, rounding aside
_INVALID_GREY: Final = 128
_RELIEF: Final = 0.03
"""Variance of colour from which on depth follows it: below, every texture would become relief."""


class MeasuredOut(BaseModel):
    """What known distances made of a depth map."""

    points: int = Field(description="Distances that were given.")
    factor: float = Field(description="The median of the corrected depth over the model's.")
    disagreeing: int = Field(
        description="Distances that the map is still off from by more than a factor of 1.25, since they "
        "contradict the others."
    )


class DepthOut(MapOut):
    """Depth. PNG: 16-bit grey; pixel 0 is invalid, others mean ``png_offset + png_scale * pixel``."""

    kind: Literal["depth"] = "depth"
    unit: str
    metric: bool
    png_scale: float
    png_offset: float
    min: float | None = Field(default=None, description="Smallest valid value, in `unit`.")
    max: float | None = Field(default=None, description="Largest valid value, in `unit`.")
    measured: MeasuredOut | None = Field(
        default=None, description="What known distances made of it, where some were given."
    )


class DepthTask(TaskSpec):
    """Distance from the camera: metres when ``metric``, otherwise right only up to an unknown scale."""

    metadata: ClassVar[type[MapOut]] = DepthOut
    criterion: ClassVar[str] = "the distance is within a factor of 1.25 of the true one"

    kind: Literal["depth"] = "depth"
    dtype: Literal["float32", "float16"] = "float32"
    unit: Literal["m", "relative"] = "m"
    metric: bool = True
    range: tuple[float, float] = Field(strict=False)
    """Smallest and largest valid value, in ``unit``; 0 in a map marks an invalid pixel."""
    trained_on: Text | None = None
    assumed_fov: float | None = None
    """Field of view over the longer side, degrees in `FOV_X`, of an image that nobody says the camera of."""

    @field_validator("assumed_fov")
    @classmethod
    def _possible(cls, value: float | None) -> float | None:
        """Every request without a camera of its own would fail."""
        if value is not None and not FOV_X[0] <= value <= FOV_X[1]:
            raise ValueError(f"assumed_fov is {value}; it is in degrees, from {FOV_X[0]:g} to {FOV_X[1]:g}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.range
        if not 0 <= low < high < float("inf"):
            raise ValueError(f"range must be 0 <= min < max, finite; got [{low}, {high}]")
        if self.metric != (self.unit == "m"):
            raise ValueError(f"metric is {self.metric} but unit is {self.unit!r}; metric depth is in 'm'")
        return self

    def inspect(self, values: Map) -> str:
        """The range of the valid depths."""
        return in_range(values[values != 0], *self.range, self.unit)

    def resample(self, values: Map, out: Map) -> None:
        """Bilinear, but where the neighbourhood holds an invalid pixel (0) the nearest one."""
        resize(values, out)
        valid = values > 0
        if valid.all():
            return
        covering, weights_at = nearest(values, *out.shape), bilinear(valid.astype(np.float32), *out.shape)
        for rows in bands(*out.shape):
            (weight,) = weights_at(rows)
            np.copyto(out[rows], covering[rows], where=weight <= _WHOLE)

    def refine(self, values: Map, guide: Guide, out: Map) -> None:
        """By their logarithms, within the range there is; with an invalid pixel (0) as `resample` does."""
        if not self.refines(values):
            self.resample(values, out)
            return
        least, most = values.min(), values.max()
        enlarged = guide.along([np.log(values.astype(np.float32, copy=False))], _RELIEF)
        for rows in bands(*out.shape):
            logs = enlarged.at(rows, 0)
            np.clip(np.exp(logs, out=logs), least, most, out=out[rows])

    def refines(self, values: Map) -> bool:
        """Where every pixel is valid."""
        return bool(values.min() > 0)

    def png_scale(self) -> tuple[float, float]:
        """``scale, offset`` of the PNG form: value = offset + scale * pixel, for pixels 1 to 65535."""
        if self.metric:
            return MILLIMETRE, 0.0
        low, high = self.range
        scale = (high - low) / 65534
        return scale, low - scale

    def to_image(self, values: Map) -> Image.Image:
        """16-bit grey: millimetres, or steps over the range; 0 is invalid."""
        scale, offset = self.png_scale()
        return quantize(
            values,
            np.uint16,
            lambda v: np.where(v > 0, np.rint((v - offset) * (1 / scale)).clip(1, 65535), 0),
        )

    @classmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        """``png_offset + png_scale * pixel``."""
        values = about["png_offset"] + about["png_scale"] * pixels.astype(np.float32)
        return np.where(pixels == 0, 0, values).astype(np.float32)

    def describe(self, values: Map, **common: Any) -> MapOut:
        """With the scale of the PNG, and the range of the valid depths."""
        low, high = _ends(values) or (None, None)
        scale, offset = self.png_scale()
        return DepthOut(
            **common,
            title=self.title,
            trained_on=self.trained_on,
            unit=self.unit,
            metric=self.metric,
            png_scale=scale,
            png_offset=offset,
            min=None if low is None else _short(low),
            max=None if high is None else _short(high),
        )

    @classmethod
    def of_metadata(cls, name: str, about: Mapping[str, Any]) -> Self:
        """The range is that of the PNG form."""
        scale, offset = about["png_scale"], about["png_offset"]
        return cls(
            name=name,
            unit=about["unit"],
            metric=about["metric"],
            range=(max(offset + scale, 0.0), offset + 65535 * scale),
            title=about.get("title"),
            trained_on=about.get("trained_on"),
        )

    def spread(self, values: Map) -> tuple[float, float] | None:
        """The nearest and the farthest depth of the colors: the 2nd and 98th percentile of what is valid."""
        valid = values[values > 0]
        if not valid.size:
            return None
        near, far = np.percentile(valid, [2, 98], overwrite_input=True)
        return float(near), float(far)

    def color(
        self, values: Map, limits: tuple[float, float] | None = None, table: str = DEFAULT
    ) -> Image.Image:
        """Colors of `mtcp_serve.kinds.colormaps`, near at the upper end, over ``limits`` or the `spread`.

        What is invalid is grey.

        Raises:
            ValueError: there is no such ``table``.
        """
        limits = limits or self.spread(values)
        if limits is None:
            return Image.new("RGB", values.shape[::-1], (_INVALID_GREY,) * 3)
        near, far = limits
        known = colormap(table)
        colors = np.empty((*values.shape, 3), np.uint8)
        for rows in bands(*values.shape):
            band = values[rows]
            closeness = (far - band) / max(far - near, 1e-6)
            known.take(
                np.rint(closeness.clip(0, 1) * 255).astype(np.uint8), axis=0, out=colors[rows], mode="clip"
            )
            colors[rows][band <= 0] = _INVALID_GREY
        return Image.fromarray(colors)

    @property
    def color_range(self) -> tuple[float, float] | None:
        """The range of the manifest."""
        return self.range

    def caption(self, values: Map) -> str:
        """The range of the valid depths."""
        ends = _ends(values)
        if ends is None:
            return "nothing valid"
        unit = " m" if self.metric else ""
        return f"{ends[0]:.2g} to {ends[1]:.2g}{unit}, near is bright"


def _ends(values: Map) -> tuple[np.floating[Any], np.floating[Any]] | None:
    """The least and the greatest valid depth; None where nothing is valid."""
    found = [(band.min(), band.max()) for rows in bands(*values.shape) if len(band := _valid(values[rows]))]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def _valid(values: Map) -> Map:
    return values[values > 0]


def _short(value: np.floating[Any]) -> float:
    """``value`` with the digits that a float32 holds, not those of its double."""
    return float(f"{value:.6g}")
