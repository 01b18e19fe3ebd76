"""What a Triton client, blocking or asyncio, asks of the server, step by step.

Each method is a generator: it yields a `Call`, is sent what the call gave (or thrown what it raised), or a
`Pause`, and returns its result. The clients differ only in how they make a call.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from threading import Lock
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtcp_serve.bundle.manifest import ConfidenceTask, InputSpec, Manifest, TaskSpec
from mtcp_serve.bundle.triton_config import newest
from mtcp_serve.clients import _wire as wire
from mtcp_serve.clients._memory import Region
from mtcp_serve.clients._options import check_deadline, refusals
from mtcp_serve.clients._regions import Regions
from mtcp_serve.clients.errors import ClientError, InvalidRequestError
from mtcp_serve.errors import RequestError
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.distances import Distances, check_measurable
from mtcp_serve.inference.images import DEFAULT_LIMITS, DecodedImage, ImageInfo
from mtcp_serve.inference.pipeline import (
    DenseMap,
    DenseMaps,
    Size,
    check_asked,
    check_maps,
    check_refine,
    enough_for,
    measured,
    refined,
)
from mtcp_serve.inference.sources import ImageSource, name_of, to_image
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.base import Map
from mtcp_serve.prediction import Prediction

T = TypeVar("T")
_UNREGISTER_S = 1.0
_CLOSE_S = 2.0
"""How long `Conversation.close` lets Triton end what nobody awaits any more."""
_AGAIN_S = 0.05


@dataclass(frozen=True)
class Call:
    """A method of Triton's client, and what it is given."""

    method: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Some seconds in which nothing is called."""

    seconds: float


Steps = Generator[Call | Pause, Any, T]


@dataclass(frozen=True)
class Outcome:
    """What became of one image of a stream: its ``prediction``, unless ``error`` says why not."""

    image: ImageSource
    prediction: Prediction | None
    error: Exception | None


class Conversation:
    """The state of a client, and what it asks."""

    def __init__(
        self,
        connect: Callable[[], Any],
        endpoint: str,
        model: str | None,
        version: int | None,
        deadline_s: float,
        shared_memory: bool,
    ) -> None:
        self._connect = connect
        self._client: Any = None
        self._connecting = Lock()
        self._endpoint = endpoint
        self.deadline_s = deadline_s
        self._model = model
        self._version = "" if version is None else str(version)
        self._shared_memory = shared_memory
        self._manifests: dict[str, Manifest] = {}
        self._regions = Regions()

    @property
    def client(self) -> Any:
        """Triton's client, made at the first call: one for asyncio belongs to the loop that runs then.

        Threads whose first calls meet share the one that is made.
        """
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def options(self, call: Call) -> dict[str, Any]:
        """The keyword arguments of ``call``, with its deadline."""
        return {"client_timeout": self.deadline_s, **call.options}

    def model(self) -> Steps[str]:
        """The model's name.

        Raises:
            ClientError: none was given, and not exactly one is loaded, or the server cannot be asked.
        """
        if self._model is None:
            index = yield Call("get_model_repository_index")
            self._model = wire.only_model(wire.ready_models(index))
        return self._model

    def manifest(self) -> Steps[Manifest]:
        """The manifest of the version that answers."""
        return (yield from self._of_version((yield from self._newest())))

    def known(self) -> Steps[Manifest]:
        """A manifest that is known: all versions of a model take and give the same tensors."""
        version = self._version or (newest(self._manifests) if self._manifests else "")
        return (yield from self._of_version(version or (yield from self._newest())))

    def infer(
        self,
        images: NDArray[np.uint8],
        tasks: Sequence[str] | None,
        image: DecodedImage | None = None,
        size: Size = "model",
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: Distances | None = None,
    ) -> Steps[list[Prediction]]:
        """The prediction for each of ``images``; ``image`` is what the only one was made of.

        With ``confidence`` the outputs that say how sure the model is are asked for too; with ``refine`` maps
        follow the edges of the image where they are enlarged; depth is corrected by ``distances``.
        """
        check_asked(tasks, size)
        if refine:
            with refusals():
                check_refine(size)
        manifest = yield from self.known()
        selected = wire.select(manifest, tasks)
        if distances is not None and image is not None:
            with refusals():
                check_measurable(selected)
                distances.check(image.info)
        sure = wire.confidences(manifest, selected) if confidence else {}
        wire.check_images(images, manifest)
        wanted = (*selected, *sure.values())
        try:
            version, maps = yield from self._infer(images, manifest, wanted)
        except wire.RegionLostError:
            self._regions.abandon_free()  # the server was started again; with a new region it can answer
            version, maps = yield from self._infer(images, manifest, wanted)
        manifest = yield from self._of_version(version)
        made_by = manifest.model_copy(update={"version": version})
        return [
            _prediction(made_by, selected, sure, maps, index, image, size, camera, refine, distances)
            for index in range(len(images))
        ]

    def close(self) -> Steps[None]:
        """Give all regions back; one that Triton still works with when some time has passed, it keeps."""
        self._regions.closed = True
        self._regions.abandon_free()
        end = time.monotonic() + _CLOSE_S
        yield from self._forget()
        while self._regions and time.monotonic() < end:
            yield Pause(_AGAIN_S)
            yield from self._forget()

    @property
    def closed(self) -> bool:
        """Whether `close` has begun."""
        return self._regions.closed

    def check_open(self) -> None:
        """Whether requests can be made.

        Raises:
            RuntimeError: the client is closed.
        """
        if self.closed:
            raise RuntimeError("the client is closed; make another")

    def _forget(self) -> Steps[None]:
        """Have Triton forget the regions that are closed, but for those that it still works with."""
        for region in self._regions.abandoned():
            try:
                yield Call(
                    "unregister_system_shared_memory", (region.name,), {"client_timeout": _UNREGISTER_S}
                )
            except BaseException as error:
                gone = isinstance(error, ClientError)  # a server that is gone has forgotten it
                if not gone or isinstance(error, wire.RegionInUseError):
                    self._regions.still_used(region)
                if not gone:
                    raise

    def _newest(self) -> Steps[str]:
        """The version that the server answers with now."""
        if self._version:
            return self._version
        metadata = yield Call("get_model_metadata", ((yield from self.model()),))
        return newest(metadata.versions)

    def _of_version(self, version: str) -> Steps[Manifest]:
        if version not in self._manifests:
            asked = version if self._version else ""
            config = yield Call("get_model_config", ((yield from self.model()), asked))
            self._manifests = wire.manifests(config, f"Triton {self._endpoint}")
        return wire.of_version(self._manifests, version)

    def _infer(
        self, images: NDArray[np.uint8], manifest: Manifest, tasks: Sequence[TaskSpec]
    ) -> Steps[tuple[str, dict[str, Map]]]:
        """The version that answered, and the maps ``[batch, ...]``."""
        region = yield from self._region(len(images), manifest)
        with self._regions.lend(region):
            inputs, outputs = wire.request(images, tasks, region)
            result = yield Call(
                "infer",
                ((yield from self.model()), inputs),
                {
                    "model_version": self._version,
                    "outputs": outputs,
                    "timeout": round(1e6 * self.deadline_s),
                },
            )
            return result.get_response().model_version, wire.answer(result, tasks, region, images.shape)

    def _region(self, batch: int, manifest: Manifest) -> Steps[Region | None]:
        """A region that nobody else uses; None without shared memory."""
        if not self._shared_memory:
            return None
        region = self._regions.take()
        if region is not None:
            if region.batch == batch:
                return region
            self._regions.abandon(region)
        region = Region(batch, manifest.input, manifest.outputs)
        try:
            yield Call("register_system_shared_memory", (region.name, region.key, region.size))
            yield from self._forget()  # a new one is made where another was abandoned
        except BaseException:
            self._regions.abandon(region)  # Triton may know it all the same
            raise
        return region


class Client:
    """What the clients, blocking and asyncio, are made of: a conversation over Triton's ``_kind``."""

    _kind: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        endpoint: str = "127.0.0.1:8001",
        model: str | None = None,
        *,
        version: int | None = None,
        deadline_s: float = 30.0,
        shared_memory: bool = False,
        api_key: str | None = None,
        authorities: str | PathLike[str] | None = None,
    ) -> None:
        check_deadline(deadline_s)
        connect = wire.connector(self._kind, endpoint, api_key, authorities)
        self._conversation = Conversation(connect, endpoint, model, version, deadline_s, shared_memory)


def read_image(image: ImageSource, taken: InputSpec, size: Size) -> tuple[DecodedImage, NDArray[np.uint8]]:
    """``image`` as the gateway would read it for maps of ``size``.

    Also stretched to ``[1, taken.height, taken.width, 3]``, which the model takes.

    Raises:
        InvalidRequestError: it cannot be read, is not an image, or is too large.
    """
    try:
        decoded = to_image(image, enough=enough_for([(taken.height, taken.width)]))
        check_maps(decoded.info, size, DEFAULT_LIMITS)
    except OSError as error:
        raise InvalidRequestError(f"{name_of(image)} cannot be read: {error.strerror or error}") from error
    except RequestError as error:
        raise InvalidRequestError(f"{name_of(image)}: {error.message}", hint=error.hint) from error
    except TypeError as error:
        raise InvalidRequestError(str(error)) from error
    return decoded, decoded.resized(taken.height, taken.width)[None]


def read_distances(points: ArrayLike | None) -> Distances | None:
    """`Distances.of`, where there are any.

    Raises:
        InvalidRequestError: they are none.
    """
    with refusals():
        return None if points is None else Distances.of(points)


def _prediction(
    manifest: Manifest,
    tasks: Sequence[TaskSpec],
    sure: Mapping[str, ConfidenceTask],
    maps: dict[str, Map],
    index: int,
    image: DecodedImage | None,
    size: Size,
    camera: CameraRequest | None,
    refine: bool,
    distances: Distances | None,
) -> Prediction:
    height, width = manifest.input.height, manifest.input.width
    info = ImageInfo(width, height, "array", "RGB", exif_rotated=False, animated=False)
    if image is not None:
        info = image.info
        if size == "input":
            height, width = info.height, info.width

    def given(task: TaskSpec) -> DenseMap:
        beside = sure.get(task.name)
        return DenseMap(
            manifest.name,
            task,
            maps[task.name][index],
            height,
            width,
            None if beside is None else given(beside),
        )

    dense = tuple(given(task) for task in tasks)
    found = DenseMaps((manifest,), info, dense, Timings(), camera)
    if distances is not None:
        with refusals():
            found = measured(found, distances)
    if refine and image is not None:
        found = refined(found, image)
    return Prediction.of(found, image)
