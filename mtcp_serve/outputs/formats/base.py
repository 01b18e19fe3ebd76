"""What a response format has to do."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import MapOut, TaskSpec
from mtcp_serve.kinds.colormaps import DEFAULT, ColormapName
from mtcp_serve.kinds.confidence import SUFFIX
from mtcp_serve.outputs.metadata import describe, describe_map
from mtcp_serve.outputs.picture import Style, draw
from mtcp_serve.outputs.png import to_png
from mtcp_serve.outputs.png_file import write_png
from mtcp_serve.outputs.points import geometry_tasks
from mtcp_serve.outputs.schemas import ImageOut, PredictOut

Step = Annotated[int, Field(ge=1)]
MinConfidence = Annotated[float, Field(ge=0, le=1)]


def _background(text: str) -> str:
    if text != "transparent" and not _COLOR.fullmatch(text):
        raise ValueError(f"{text!r} is neither transparent nor a color: #ffffff (%23ffffff in an address)")
    return text


_COLOR = re.compile("#[0-9a-fA-F]{6}")
Background = Annotated[
    str,
    AfterValidator(_background),
    WithJsonSchema({"type": "string", "pattern": f"^(transparent|{_COLOR.pattern})$"}),
]


@dataclass(frozen=True)
class Options:
    """What a request may say of its format; a format takes those that its `Writer.options` names."""

    visualize: bool = False
    """Each map comes with an RGB picture for people; so it does where one of the next two is given."""
    colormap: ColormapName | None = None
    """Colours of the pictures of depth (`mtcp_serve.kinds.colormaps`)."""
    legend: bool = False
    """Say below the pictures of depth which depth a colour stands for."""
    refine: bool | None = None
    """Maps follow the edges of the image where they are enlarged; unsaid, those of cut-outs do."""
    confidence: bool = False
    """Each map comes with how sure the model is of it, where the model says so."""
    min_confidence: MinConfidence | None = None
    """Leave out the points that the model is less sure of than this."""
    step: Step | None = None
    """A point for every so many pixels, across and down."""
    edges: bool = False
    """Leave points where the network has them at jumps of the depth: between two surfaces."""
    background: Background = "transparent"
    """``transparent``, or the colour ``#rrggbb`` to lay the cut-out over."""

    @property
    def style(self) -> Style | None:
        """How pictures are drawn; ``None`` where none are wanted."""
        if not (self.visualize or self.legend or self.colormap is not None):
            return None
        return Style(self.colormap or DEFAULT, self.legend)

    @property
    def needs_confidence(self) -> bool:
        """Whether the model has to say how sure it is."""
        return self.confidence or self.min_confidence is not None


class Writer(ABC):
    """Writes one response: `add` for each image, then `finish`.

    Encoders resize and encode map by map, one per thread of ``pool`` at most, and release each array when it
    is encoded: at the size of a large image all of them together are hundreds of megabytes.
    """

    name: ClassVar[str]
    """Value of ``format``."""
    media_type: ClassVar[str]
    """What the format is called in ``Accept``."""
    file_name: ClassVar[str]
    """What to call a file of it; ``{task}`` is the name of its first task."""
    description: ClassVar[str]
    """For the API docs: what is in the body."""
    single: ClassVar[bool] = False
    """Whether an answer holds no more than one map of one image."""
    one_image: ClassVar[bool] = False
    """Whether an answer holds no more than one image."""
    by_name_only: ClassVar[bool] = False
    """Whether ``Accept`` cannot ask for it: another format has the same media type."""
    needs_image: ClassVar[bool] = False
    """Whether the image itself is needed beside its maps."""
    options: ClassVar[frozenset[str]] = frozenset({"visualize", "colormap", "legend", "refine", "confidence"})
    """The fields of `Options` that it heeds."""

    def __init__(self, pool: Executor, wanted: Options | None = None) -> None:
        self.pool = pool
        self.wanted = wanted or Options()

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """Those of ``tasks`` that the format shows.

        Raises:
            InvalidParameterError: the format cannot be made of them.
        """
        if cls.single and len(tasks) != 1:
            raise InvalidParameterError(
                f"format {cls.name} holds one map, but {len(tasks)} are asked for",
                "name one of them as tasks",
            )
        return list(tasks)

    @classmethod
    def sure(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """Those of the `used` ``tasks`` whose confidence the format shows or heeds."""
        return list(tasks)

    def add(self, prediction: DenseMaps, folder: str = "") -> PredictOut:
        """Write the maps of an image, under names that begin with ``folder``; the description of them."""
        with prediction.timings.measure("encode"):
            maps = self._write(prediction, folder)
        return describe(prediction, maps)

    @property
    def content_type(self) -> str:
        """The ``Content-Type`` of this answer."""
        return self.media_type

    @abstractmethod
    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        """Write the maps; their metadata by task name."""

    @abstractmethod
    def finish(self, document: BaseModel) -> bytes:
        """The body, with ``document``, which describes everything that was added."""


def needs_package(format: str, name: str, module: str, extra: str, instead: str) -> None:
    """Check that ``module`` of the package called ``name``, which ``extra`` brings, is installed.

    Raises:
        InvalidParameterError: it is not; the format ``instead`` does without.
    """
    if find_spec(module) is None:
        raise InvalidParameterError(
            f"format {format} needs {name}, which is not installed here",
            f"pip install 'mtcp-serve[{extra}]' where the server runs, or ask for {instead}",
        )


def needs_depth(format: str, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """The depth among ``tasks``, and the normals after it where there are some.

    Raises:
        InvalidParameterError: there is no depth.
    """
    found = geometry_tasks(tasks)
    if not found or found[0].kind != "depth":
        names = ", ".join(task.name for task in tasks)
        raise InvalidParameterError(
            f"format {format} needs a depth map, but the tasks are {names}",
            "name one of kind depth, or leave tasks out",
        )
    return found


@dataclass(frozen=True)
class EncodedMap:
    """A map as a PNG file, its metadata, and, as PNG files where they were asked for, two things beside it.

    They are the picture for people, and how sure the model is of the map.
    """

    metadata: MapOut
    png: bytes
    picture: bytes | None
    confidence: bytes | None

    def files(self, stem: str) -> Iterator[tuple[str, bytes]]:
        """File names and contents, the names beginning with ``stem``."""
        yield f"{stem}.png", self.png
        if self.picture is not None:
            yield f"{stem}.visualization.png", self.picture
        if self.confidence is not None:
            yield f"{stem}{SUFFIX}.png", self.confidence


def encode_maps(prediction: DenseMaps, pool: Executor, style: Style | None = None) -> dict[str, EncodedMap]:
    """Every map of a prediction by task name, made in parallel; with pictures where there is a ``style``."""
    versions = {manifest.name: manifest.version for manifest in prediction.models}
    image = describe(prediction, {}).image

    def encode(dense: DenseMap) -> EncodedMap:
        return _encode_map(dense, versions[dense.model], image, style)

    return dict(
        zip([dense.task.name for dense in prediction.maps], pool.map(encode, prediction.maps), strict=True)
    )


def _encode_map(dense: DenseMap, version: str, image: ImageOut, style: Style | None) -> EncodedMap:
    values = dense.values()
    metadata = describe_map(dense, values)
    png = to_png(dense.task, values, metadata, version, image)
    picture = None if style is None else write_png(draw(dense.task, values, style))
    del values
    sure = None if dense.confidence is None else _encode_map(dense.confidence, version, image, None).png
    return EncodedMap(metadata, png, picture, sure)
