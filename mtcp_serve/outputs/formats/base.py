"""What a response format has to do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMap, Prediction
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.metadata import describe, describe_map
from mtcp_serve.outputs.png import COMPRESS_LEVEL, to_png
from mtcp_serve.outputs.schemas import ImageOut, PredictOut


class Writer(ABC):
    """Writes one response: `add` for each photo, then `finish`.

    Encoders resize and encode map by map, one a thread of ``pool`` at most, and let go of each array when it
    is encoded: at the size of a large photo all of them together are hundreds of megabytes. With
    ``visualize`` each map comes with an RGB picture for people.
    """

    name: ClassVar[str]
    """Value of ``format``."""
    media_type: ClassVar[str]
    """What the format is called in ``Accept``."""
    description: ClassVar[str]
    """For the reference: what is in the body."""
    single: ClassVar[bool] = False
    """Whether an answer holds no more than one map of one photo."""

    def __init__(self, pool: Executor, visualize: bool = False) -> None:
        self.pool = pool
        self.visualize = visualize

    def add(self, prediction: Prediction, folder: str = "") -> PredictOut:
        """Write the maps of a photo, under names that begin with ``folder``; the description of them."""
        with prediction.timings.measure("encode"):
            maps = self._write(prediction, folder)
        return describe(prediction, maps)

    @property
    def content_type(self) -> str:
        """The ``Content-Type`` of this answer."""
        return self.media_type

    @abstractmethod
    def _write(self, prediction: Prediction, folder: str) -> dict[str, MapOut]:
        """Write the maps; their metadata by task name."""

    @abstractmethod
    def finish(self, document: BaseModel) -> bytes:
        """The body, with ``document``, which describes everything that was added."""


@dataclass(frozen=True)
class EncodedMap:
    """A map as a PNG file, its metadata, and the picture for people (PNG) where that was asked for."""

    metadata: MapOut
    png: bytes
    picture: bytes | None

    def files(self, stem: str) -> Iterator[tuple[str, bytes]]:
        """File names and contents, the names beginning with ``stem``."""
        yield f"{stem}.png", self.png
        if self.picture is not None:
            yield f"{stem}.visualization.png", self.picture


def encode_maps(prediction: Prediction, pool: Executor, visualize: bool = False) -> dict[str, EncodedMap]:
    """Every map of a prediction by task name, made in parallel."""
    versions = {manifest.name: manifest.version for manifest in prediction.models}
    image = describe(prediction, {}).image

    def encode(dense: DenseMap) -> EncodedMap:
        return _encode_map(dense, versions[dense.model], image, visualize)

    return dict(
        zip([dense.task.name for dense in prediction.maps], pool.map(encode, prediction.maps), strict=True)
    )


def _encode_map(dense: DenseMap, version: str, image: ImageOut, visualize: bool) -> EncodedMap:
    values = dense.values()
    metadata = describe_map(dense, values)
    png = to_png(dense.task, values, metadata, version, image)
    if not visualize:
        return EncodedMap(metadata, png, None)
    picture = BytesIO()
    dense.task.color(values).save(picture, "PNG", compress_level=COMPRESS_LEVEL)
    return EncodedMap(metadata, png, picture.getvalue())
