"""What every kind of task answers for itself: its entry in the manifest, its maps, and what is said of them.

A kind is a subclass of `TaskSpec` in a file of its own and a line in `mtcp_serve.kinds`. Everything else (the
engines, resampling, PNG and array formats, metadata, visualizations, ``mtcp-serve check``, the clients, the
page) asks the task.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from mtcp_serve.errors import InternalError
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.kinds.resample import resize

Map = NDArray[np.uint8] | NDArray[np.float32]
"""One task's map: uint8 labels or float32 values, ``[height, width]`` and the kind's own axes after them."""
Rule = Literal["none", "nearest", "bilinear", "majority", "guided"]
"""How a map was brought to its size.

``majority`` is the class that most of the surrounding pixels have, ``guided`` follows the edges of the image.
"""
TensorType = Literal["uint8", "float32", "float16"]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A part of the manifest: immutable, no conversions, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, validate_by_name=True, validate_by_alias=True
    )


class Confidence(Strict):
    """How sure a model is of a task's map: an output of its graph, float32 ``[batch, height, width]``.

    Its values are calibrated probabilities that the map is right there, 0 to 1; see
    `mtcp_serve.kinds.confidence.ConfidenceTask`.
    """

    output: Text
    """Name of the graph's output tensor."""
    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)
    criterion: Text | None = None
    """When a pixel is right, in words; the kind's own unless given."""


class ConfidenceOut(BaseModel):
    """How sure the model is of a map: the calibrated probability, at each pixel, that it is right there."""

    criterion: str = Field(description="When a pixel is right, in words.")
    mean: float = Field(description="Of the confidence as the model gave it, 0 to 1.")
    resampled: Rule = Field(description="How it was brought from the model's size to that of the map.")
    png: str | None = Field(
        default=None,
        description="As large as the map: 8-bit grey PNG, `round(255 * confidence)`, base64. "
        "Only in format json.",
    )


class MapOut(BaseModel):
    """What a response says of a map, whatever its kind; subclasses have ``kind`` and what belongs to it."""

    model: str
    title: str | None = Field(default=None, description="What people call the map.")
    trained_on: str | None = None
    width: int
    height: int
    resampled: Rule = Field(description="How the map was brought from the model's size to this one.")
    png: str | None = Field(default=None, description="The map as PNG, base64. Only in format json.")
    visualization: str | None = Field(
        default=None, description="A picture of the map, PNG, base64. Only in format json with visualize."
    )
    confidence: ConfidenceOut | None = Field(
        default=None, description="How sure the model is of the map, where that was asked for and it says so."
    )


class TaskSpec(Strict, ABC):
    """A task of a model, as its manifest describes it. Its maps are arrays ``[height, width, *channels]``."""

    channels: ClassVar[tuple[int, ...]] = ()
    """Trailing axes of the output after ``[batch, height, width]``."""
    array_type: ClassVar[Literal["uint8", "float32"]] = "float32"
    """Type of the maps that engines give, whatever type the graph has."""
    resampling: ClassVar[Rule] = "bilinear"
    """How `resize` changes the size."""
    metadata: ClassVar[type[MapOut]]
    """What a response says of a map of this kind."""
    criterion: ClassVar[str] = "the value is the true one"
    """When a pixel is right, in words: what a confidence is the probability of."""

    name: Identifier
    output: Text = Field(default_factory=lambda fields: fields["name"])
    """Name of the graph's output tensor; the task's name unless given."""
    title: Text | None = None
    """What people call the map, such as "Objects"; the task's name unless given."""
    kind: str
    dtype: TensorType
    """Type of the graph's output."""
    confidence: Confidence | None = None
    """The graph's output that says how sure the model is of the map, if it has one."""

    @classmethod
    def first_of(cls, tasks: Iterable["TaskSpec"]) -> Self | None:
        """The first of ``tasks`` that is of this kind, where one is."""
        return next((task for task in tasks if isinstance(task, cls)), None)

    def output_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape, without the batch, of the graph's output for an input of ``height`` x ``width`` pixels."""
        return (height, width, *self.channels)

    def to_map(self, array: NDArray[Any]) -> Map:
        """What a graph gave, as `array_type`; a leading batch axis stays."""
        return array.astype(self.array_type, copy=False)

    def check(self, values: Map) -> None:
        """Refuse a map that no client could make sense of.

        Raises:
            InternalError: it has values that the task cannot have.
        """
        if not np.isfinite(values).all():
            raise InternalError(f"the model gave values for task {self.name} that are not finite")

    @abstractmethod
    def inspect(self, values: Map) -> str:
        """What is in a map, in a line, for who checks a bundle.

        Raises:
            InternalError: the values are not what the manifest says.
        """

    def resampled(self, values: Map, height: int, width: int) -> Rule:
        """How `resize` brings ``values`` to ``height`` x ``width`` pixels."""
        return "none" if values.shape[:2] == (height, width) else self.resampling

    def resize(self, values: Map, height: int, width: int) -> Map:
        """``values`` at ``height`` x ``width`` pixels, none invented; the same array where it fits."""
        if values.shape[:2] == (height, width):
            return values
        out: Map = np.empty((height, width, *values.shape[2:]), self.array_type)
        self.resample(values, out)
        return out

    def resample(self, values: Map, out: Map) -> None:
        """Write ``values`` into ``out``, which has another height and width, as `resize` brings them there.

        Bilinear, channel by channel, unless a kind has its own rule.
        """
        resize(values, out)

    def refine(self, values: Map, guide: Guide, out: Map) -> None:
        """Write ``values`` into ``out``, at the size of the image of ``guide`` and along its edges.

        As `resample` does it, unless a kind has its own rule; see `refines`.
        """
        self.resample(values, out)

    def refines(self, values: Map) -> bool:
        """Whether `refine` does anything else with ``values`` than `resample`."""
        return False

    @abstractmethod
    def to_image(self, values: Map) -> Image.Image:
        """The map in its PNG form, values rounded and clamped."""

    @classmethod
    @abstractmethod
    def from_pixels(cls, about: Mapping[str, Any], pixels: NDArray[Any]) -> Map:
        """The values of a map in its PNG form; ``about`` is its metadata."""

    def describe(self, values: Map, **common: Any) -> MapOut:
        """The metadata of a map; ``common`` has the fields of `MapOut`.

        Of the task's own fields it takes those that the metadata has too, but not ``confidence``: there it
        says what came out.
        """
        fields = self.metadata.model_fields.keys() & type(self).model_fields.keys() - {"confidence"}
        return self.metadata(**common, **{name: getattr(self, name) for name in fields})

    @classmethod
    def of_metadata(cls, name: str, about: Mapping[str, Any]) -> Self:
        """The task ``name`` as far as the metadata of a map tells, without its confidence.

        That is enough for `color` and `caption`.
        """
        fields = cls.model_fields.keys() & about.keys() - {"confidence"}
        return cls(name=name, **{field: about[field] for field in fields})

    def color(self, values: Map, limits: tuple[float, float] | None = None) -> Image.Image:
        """An RGB visualization of a map; ``limits`` are for kinds that have a `color_range`."""
        return self.to_image(values).convert("RGB")

    @property
    def color_range(self) -> tuple[float, float] | None:
        """Values to spread the colors over, so that they are the same for every image; None if they are."""
        return None

    @abstractmethod
    def caption(self, values: Map) -> str:
        """What a map shows, in a few words, after the task's name."""


def in_range(values: NDArray[np.generic], low: float, high: float, unit: str) -> str:
    """Smallest and largest of ``values``, which must be between ``low`` and ``high``.

    Raises:
        InternalError: they are not.
    """
    if not values.size:
        return "no valid pixel"
    found = f"{float(values.min()):.4g} to {float(values.max()):.4g} {unit}".strip()
    slack = 1e-3 * (high - low)
    if values.min() < low - slack or values.max() > high + slack:
        raise InternalError(f"the values are {found}, the manifest says {low:g} to {high:g}")
    return found
