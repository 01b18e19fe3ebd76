"""``labels``: one class id a pixel."""

from collections.abc import Mapping
from functools import cached_property
from math import ceil
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, model_validator

from mtcp_serve.errors import InternalError
from mtcp_serve.kinds.base import Map, MapOut, Rule, TaskSpec, Text
from mtcp_serve.kinds.guided import RADIUS, Guide
from mtcp_serve.kinds.resample import bands, resize_labels

Color = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
_WHITE = (255, 255, 255)
_TEXTURE = 0.01
"""Variance of colour from which on borders of classes follow it: below, texture would fray them."""


class Label(BaseModel):
    """A class: its id (the pixel value), its name, and a colour for display."""

    id: int
    name: str
    color: str


class LabelsOut(MapOut):
    """Classes. PNG: 8-bit indexed, pixel = class id; the palette is for display only."""

    kind: Literal["labels"] = "labels"
    dataset: str
    labels: list[Label]
    present: list[int] = Field(description="Ids of the classes that occur in this map.")
    ignore_index: int = Field(description="Pixel value for 'no class'.")


class LabelsTask(TaskSpec):
    """One class id a pixel. ``labels[i]`` and ``palette[i]`` (``#rrggbb``) belong to class id ``i``."""

    array_type: ClassVar[Literal["uint8", "float32"]] = "uint8"
    resampling: ClassVar[Rule] = "majority"
    metadata: ClassVar[type[MapOut]] = LabelsOut
    criterion: ClassVar[str] = "the label is the true one"

    kind: Literal["labels"] = "labels"
    dtype: Literal["uint8"] = "uint8"
    dataset: Text
    """Name of the label space or of the data set that defines it."""
    labels: tuple[Text, ...] = Field(min_length=2, max_length=256, strict=False)
    palette: tuple[Color, ...] = Field(strict=False)
    ignore_index: int = Field(default=255, ge=0, le=255)

    @model_validator(mode="after")
    def _one_color_per_label(self) -> Self:
        if len(self.labels) != len(self.palette):
            raise ValueError(f"{len(self.labels)} labels but {len(self.palette)} palette colours")
        return self

    def check(self, values: Map) -> None:
        """Every class id must have a name, or be `ignore_index`."""
        if values.max(initial=0) < len(self.labels):
            return  # as nearly always, and hundreds of times as fast as counting
        ids = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if set(ids) - {*range(len(self.labels)), self.ignore_index}:
            raise InternalError(f"the model gave class ids that task {self.name} does not name")

    def inspect(self, values: Map) -> str:
        """The classes that occur."""
        present = [self.labels[i] for i in np.unique(values) if i != self.ignore_index]
        return f"{len(present)} classes: {', '.join(present)}"

    def resample(self, values: Map, out: Map) -> None:
        """The class that most of the surrounding pixels have, the nearer the more; see `resize_labels`."""
        resize_labels(values.astype(np.uint8, copy=False), out)

    def refine(self, values: Map, guide: Guide, out: Map) -> None:
        """Each class as a map of zeros and ones; of those within reach of a pixel the largest wins."""
        ids = values.astype(np.uint8, copy=False)
        classes = np.unique(ids)
        of_class = [ids == each for each in classes]
        enlarged = guide.along([each.astype(np.float32) for each in of_class], _TEXTURE)
        down, across = (before / after for before, after in zip(ids.shape, out.shape, strict=True))
        above, beside = (  # how far a class is seen, in pixels of the map
            ceil((RADIUS + 2) * before / grid) for before, grid in zip(ids.shape, enlarged.grid, strict=True)
        )
        for rows in bands(*out.shape):
            near = slice(max(int(rows.start * down) - above, 0), int(rows.stop * down) + above + 1)
            most = np.zeros(out[rows].shape, np.float32)
            for index, there in enumerate(each[near].any(axis=0) for each in of_class):
                if not there.any():
                    continue
                first, last = np.flatnonzero(there)[[0, -1]]
                columns = slice(max(int((first - beside) / across), 0), int((last + 1 + beside) / across) + 1)
                share, before = enlarged.at(rows, index, columns), most[:, columns]
                larger = share > before
                np.copyto(before, share, where=larger)
                np.copyto(out[rows, columns], classes[index], where=larger)

    def refines(self, values: Map) -> bool:
        """Always."""
        return True

    def to_image(self, values: Map) -> Image.Image:
        """8-bit indexed, pixel = class id."""
        image = Image.fromarray(values)
        palette = [_WHITE] * 256
        palette[: len(self.palette)] = map(_rgb, self.palette)
        image.putpalette([channel for color in palette for channel in color])
        return image

    @classmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        """The pixels are the ids."""
        return pixels

    def describe(self, values: Map, **common: Any) -> MapOut:
        """With names and colours, and the classes that occur."""
        counts = Image.fromarray(values).histogram()
        return LabelsOut(
            **common,
            title=self.title,
            dataset=self.dataset,
            labels=self._classes,
            present=[i for i, count in enumerate(counts) if count and i != self.ignore_index],
            ignore_index=self.ignore_index,
        )

    @cached_property
    def _classes(self) -> list[Label]:
        """The classes as every map's metadata has them."""
        return [
            Label(id=index, name=name, color=color)
            for index, (name, color) in enumerate(zip(self.labels, self.palette, strict=True))
        ]

    @classmethod
    def of_metadata(cls, name: str, about: Mapping[str, Any]) -> Self:
        """Names and colours are in one list there."""
        return cls(
            name=name,
            title=about.get("title"),
            dataset=about["dataset"],
            labels=tuple(label["name"] for label in about["labels"]),
            palette=tuple(label["color"] for label in about["labels"]),
            ignore_index=about["ignore_index"],
        )

    def caption(self, values: Map) -> str:
        """The largest classes."""
        counts = np.array(Image.fromarray(values).histogram()[: len(self.labels)])
        largest = [int(index) for index in np.argsort(-counts, kind="stable")[:4] if counts[index]]
        return ", ".join(self.labels[index] for index in largest)


def _rgb(color: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue
