"""The bodies of the answers: what is sent and what the OpenAPI document says are the same classes.

A field whose value is ``None`` is left out of the answer.
"""

from typing import Literal

from pydantic import BaseModel, Field

from mtcp_serve.bundle.manifest import InputSpec
from mtcp_serve.inference.camera import Source
from mtcp_serve.kinds import AnyMap, AnyTask


class ModelRef(BaseModel):
    """The model that made the maps, and the size (pixels) of its input."""

    name: str
    version: str
    width: int
    height: int


class CameraOut(BaseModel):
    """A pinhole camera, in pixels of the upright image; pixel centres are at integers (OpenCV, ROS)."""

    fx: float
    fy: float
    cx: float
    cy: float
    source: Source = Field(
        description="Who says so: the request, the image's EXIF, the model's manifest, or nobody (assumed)."
    )


class ImageOut(BaseModel):
    """The image as it was read; ``width`` and ``height`` (pixels) are those after EXIF orientation."""

    width: int
    height: int
    format: str
    mode: str = Field(description="Pixel format in the file, by Pillow's name.")
    exif_rotated: bool = Field(description="An EXIF orientation was applied.")
    animated: bool = Field(description="The file has more frames or pages; the first was used.")
    camera: CameraOut


class PredictOut(BaseModel):
    """The answer of ``POST /predict``."""

    models: list[ModelRef]
    image: ImageOut
    maps: dict[str, AnyMap] = Field(description="By task name, in the order asked for.")
    without_confidence: list[str] | None = Field(
        default=None,
        description="Where confidence was asked for: the tasks that the model does not say it of.",
    )
    timings_ms: dict[str, float] = Field(description="Milliseconds: queue, decode, infer, encode.")


class ImageResult(BaseModel):
    """What became of one image of a batch: a response, or an error, as it would have been for it alone."""

    index: int = Field(description="Place of the image in the request, from 0.")
    name: str | None = Field(default=None, description="File name in the request.")
    status: int = Field(description="HTTP status that the image alone would have been answered with.")
    response: PredictOut | None = None
    answer: PredictOut | None = Field(
        default=None,
        description="Old name of `response`, in its place with MTCP_BATCH_ANSWER=true.",
        deprecated=True,
    )
    error: "ErrorDetail | None" = None


class BatchOut(BaseModel):
    """The answer of ``POST /predict/batch``, in the order of the images."""

    results: list[ImageResult]


class ModelOut(BaseModel):
    """A loaded model."""

    name: str
    version: str
    default: bool = Field(description="The model given first, which goes before the others.")
    device: str
    input: InputSpec
    tasks: list[AnyTask]
    parameters: int | None = None
    gmacs: float | None = None
    license: str | None = None
    description: str | None = None


class ModelsOut(BaseModel):
    """The answer of ``GET /models``."""

    models: list[ModelOut]
    tasks: dict[str, str] = Field(
        description="Every task there is, and the model that answers it when a request names none."
    )


class HealthOut(BaseModel):
    """The answer of the health checks."""

    status: Literal["live", "ready"]


class ErrorDetail(BaseModel):
    """What went wrong: for programs, for people, and what to do about it."""

    code: str
    message: str
    hint: str


class ErrorOut(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail
