"""From the bytes of an image to its maps: the one way, for HTTP and the command line alike."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import DepthTask, Manifest, TaskSpec
from mtcp_serve.errors import ImageTooLargeError, InvalidParameterError
from mtcp_serve.inference.camera import Camera, CameraRequest, find_camera
from mtcp_serve.inference.distances import Distances
from mtcp_serve.inference.images import DecodedImage, ImageInfo, ImageLimits, decode
from mtcp_serve.inference.registry import Choice
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.base import Map, Rule
from mtcp_serve.kinds.depth import MeasuredOut
from mtcp_serve.kinds.guided import Guide
from mtcp_serve.utils.concurrency import in_thread, together

Size = Literal["input", "model"]
"""Maps as large as the image, or as the model gives them."""


def check_asked(tasks: Sequence[str] | None, size: Size = "model") -> None:
    """Refuse what is neither a list of names nor a `Size`, which a program without types may give.

    Raises:
        TypeError: ``tasks`` is one name, or a generator.
        ValueError: ``tasks`` is empty, or there is no such ``size``.
    """
    if isinstance(tasks, str):
        raise TypeError(f"tasks is a list of names, such as [{tasks!r}]")
    if tasks is not None:
        if not isinstance(tasks, Collection):
            raise TypeError(f"tasks is a list of names, such as ['depth']; this is {type(tasks).__name__}")
        if not len(tasks):
            raise ValueError("tasks is empty; name at least one task, or leave it out for all")
    if size not in get_args(Size):
        raise ValueError(f"size is {size!r}, it must be 'input' or 'model'")


def check_in_flight(count: int) -> None:
    """Refuse a stream that would have no image on its way.

    Raises:
        ValueError: ``count`` is less than 1.
    """
    if count < 1:
        raise ValueError(f"in_flight is {count}, it must be at least 1")


@dataclass(frozen=True)
class DenseMap:
    """One task's answer: ``raw`` as the model gave it, and the size (pixels) that was asked for.

    Arrays are uint8 (labels) or float32 ``[height, width]``; normals have a last axis of 3.
    """

    model: str
    task: TaskSpec
    raw: Map
    height: int
    width: int
    confidence: "DenseMap | None" = None
    """How sure the model is of it, at the same size, where that was asked for and the model says so."""
    guide: Guide | None = None
    """The image whose edges the map is to follow where it is enlarged."""
    measured: MeasuredOut | None = None
    """What known distances made of it; ``raw`` is corrected by them."""

    @property
    def resampled(self) -> Rule:
        """How `values` are brought to their size."""
        if self.guide is not None and self._enlarged and self.task.refines(self.raw):
            return "guided"
        return self.task.resampled(self.raw, self.height, self.width)

    @property
    def _enlarged(self) -> bool:
        """Whether it has more pixels than ``raw`` along one side or both."""
        there: tuple[int, ...] = self.raw.shape
        return self.height > there[0] or self.width > there[1]

    def values(self) -> Map:
        """The map at its size: made anew at each call, so that nobody keeps what may be very large."""
        if self.shape == self.raw.shape:
            return self.raw
        out: Map = np.empty(self.shape, self.task.array_type)
        self.write(out)
        return out

    @property
    def shape(self) -> tuple[int, ...]:
        """That of `values`."""
        return (self.height, self.width, *self.raw.shape[2:])

    def write(self, out: Map) -> None:
        """Write `values` into ``out``, of their `shape`."""
        if self.shape == self.raw.shape:
            out[:] = self.raw
        elif self.guide is not None and self._enlarged:
            self.task.refine(self.raw, self.guide, out)
        else:
            self.task.resample(self.raw, out)


@dataclass(frozen=True)
class DenseMaps:
    """The maps of one image and what is known about how they came about."""

    models: tuple[Manifest, ...]
    image: ImageInfo
    maps: tuple[DenseMap, ...]
    timings: Timings
    camera_request: CameraRequest | None = None
    """What the request says of the camera."""
    decoded: DecodedImage | None = None
    """The image itself, where `predict` was told to keep it."""

    @property
    def camera(self) -> Camera:
        """The camera of the upright image; see `mtcp_serve.inference.camera.find_camera`."""
        return find_camera(
            self.image.width,
            self.image.height,
            self.camera_request,
            self.image.focal,
            assumed_fov(self.models),
        )

    def first(self, kind: type[TaskSpec]) -> DenseMap | None:
        """The first map of a kind, where there is one."""
        task = kind.first_of(dense.task for dense in self.maps)
        return next((dense for dense in self.maps if dense.task is task), None)


def refined(found: DenseMaps, image: DecodedImage) -> DenseMaps:
    """``found``, its maps following the edges of ``image`` where they are enlarged to its size."""
    guide = Guide(partial(image.resized, found.image.height, found.image.width))
    return replace(found, maps=tuple(replace(dense, guide=guide) for dense in found.maps))


def measured(found: DenseMaps, distances: Distances) -> DenseMaps:
    """``found`` with depth in metres corrected by ``distances``.

    Raises:
        InvalidParameterError: what `Distances.correct` raises.
    """

    def corrected(dense: DenseMap) -> DenseMap:
        if not isinstance(dense.task, DepthTask) or not dense.task.metric:
            return dense
        raw, about = distances.correct(dense.raw.astype(np.float32, copy=False), found.image)
        return replace(dense, raw=raw, measured=about)

    return replace(found, maps=tuple(map(corrected, found.maps)))


def check_refine(size: Size) -> None:
    """Refuse to refine maps that are not enlarged.

    Raises:
        InvalidParameterError: ``size`` is the model's.
    """
    if size == "model":
        raise InvalidParameterError(
            "refine brings maps to the size of the image along its edges, but size is model",
            "leave one of the two out",
        )


async def predict(
    data: bytes,
    choices: Sequence[Choice],
    size: Size,
    limits: ImageLimits,
    timings: Timings,
    decoding: AbstractAsyncContextManager[object] | None = None,
    camera: CameraRequest | None = None,
    keep_image: bool = False,
    refine: bool = False,
    distances: Distances | None = None,
) -> DenseMaps:
    """The maps of ``choices`` for the image in ``data``; stage times go into ``timings``.

    The image is decoded once, and each model runs once, on its own input size. ``decoding`` is held while
    decoding; with ``keep_image`` the prediction has the image; with ``refine`` its maps follow the image's
    edges where they are enlarged; depth in metres is corrected by ``distances``.

    Raises:
        RequestError: what `mtcp_serve.inference.images.decode` raises.
        InvalidParameterError: one of ``distances`` is outside of the image, or where there is no depth.
        ImageTooLargeError: maps as large as the image would have more than ``limits.max_pixels``.
        InternalError: a model gave values that the task cannot have.
    """
    async with decoding or nullcontext():
        with timings.measure("decode"):
            image, pixels = await in_thread(partial(_read, data, limits, input_sizes(choices)))
            info = image.info
            check_maps(info, size, limits)
            if distances is not None:
                distances.check(info)
            if not (keep_image or refine):
                del image
    prediction = await infer_maps(info, pixels, choices, size, timings, camera)
    if distances is not None:
        prediction = await in_thread(partial(measured, prediction, distances))
    if refine:
        prediction = refined(prediction, image)
    return replace(prediction, decoded=image) if keep_image else prediction


async def infer_maps(
    image: ImageInfo,
    pixels: Mapping[tuple[int, int], NDArray[np.uint8]],
    choices: Sequence[Choice],
    size: Size,
    timings: Timings,
    camera: CameraRequest | None = None,
) -> DenseMaps:
    """The maps of ``choices`` for a decoded image: ``pixels`` has it at every one of `input_sizes`.

    Raises:
        InternalError: a model gave values that the task cannot have.
    """
    models = {choice.manifest.name: choice.batcher for choice in choices}

    async def infer(model: str) -> list[DenseMap]:
        batcher = models[model]
        mine = [choice for choice in choices if choice.batcher is batcher]
        sure = [choice.confidence for choice in mine if choice.confidence is not None]
        tasks: list[TaskSpec] = [*(choice.task for choice in mine), *sure]
        height, width = batcher.engine.manifest.input.height, batcher.engine.manifest.input.width
        raw = await batcher.infer(pixels[height, width], tasks, timings)
        for task, values in zip(tasks, raw, strict=True):
            task.check(values)
        if size == "input":
            height, width = image.height, image.width
        given = {
            task.name: DenseMap(model, task, values, height, width)
            for task, values in zip(tasks, raw, strict=True)
        }
        return [
            replace(
                given[choice.task.name],
                confidence=None if choice.confidence is None else given[choice.confidence.name],
            )
            for choice in mine
        ]

    answers = await together(infer(model) for model in models)
    maps = {dense.task.name: dense for answer in answers for dense in answer}
    return DenseMaps(
        tuple(batcher.engine.manifest for batcher in models.values()),
        image,
        tuple(maps[choice.task.name] for choice in choices),
        timings,
        camera,
    )


def assumed_fov(models: Sequence[Manifest]) -> float | None:
    """What ``models`` assume of an image that nobody says the camera of: degrees over its longer side."""
    tasks = [task for manifest in models for task in manifest.tasks]
    return next((task.assumed_fov for task in tasks if isinstance(task, DepthTask)), None)


def input_sizes(choices: Sequence[Choice]) -> set[tuple[int, int]]:
    """Height and width (pixels) of the inputs of the models of ``choices``."""
    return {(choice.manifest.input.height, choice.manifest.input.width) for choice in choices}


def enough_for(sizes: Collection[tuple[int, int]]) -> int:
    """Pixels a side that an image has to be decoded with for inputs of ``sizes``: twice theirs."""
    return 2 * max(max(size) for size in sizes)


def check_maps(info: ImageInfo, size: Size, limits: ImageLimits) -> None:
    """Refuse maps as large as an image that was decoded at reduced size because it is beyond the limit.

    Raises:
        ImageTooLargeError: they would have more than ``limits.max_pixels``.
    """
    count = info.width * info.height
    if size == "input" and count > limits.max_pixels:
        raise ImageTooLargeError(
            f"maps as large as the image would have {count} pixels, the limit is {limits.max_pixels}",
            "ask for size=model, or scale the image down",
        )


def _read(
    data: bytes, limits: ImageLimits, sizes: set[tuple[int, int]]
) -> tuple[DecodedImage, dict[tuple[int, int], NDArray[np.uint8]]]:
    """The image, at a size that is enough for the models, and it at every size of ``sizes``."""
    image = decode(data, limits, enough=enough_for(sizes))
    return image, {size: image.resized(*size) for size in sizes}
