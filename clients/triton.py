"""A blocking client for Triton over gRPC; threads may share one."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clients import _wire as wire
from clients._maps import Map, Maps, Outcome
from clients._memory import Region
from clients._photos import Photo, to_pixels
from clients._regions import Regions
from clients.errors import ClientError
from mtcp_serve.bundle.manifest import Manifest, TaskSpec


class TritonClient:
    """Predictions of a model in a repository that ``export.triton`` wrote; use it in a ``with`` statement.

    The manifest comes from the server. ``model`` may be left out where only one is loaded; ``version`` is
    Triton's number, by default the newest. Each request ends within ``deadline_s`` seconds, retries included
    (the first prediction makes up to five: it asks for the model, its version and manifest too); only
    UNAVAILABLE is retried (no server, or its queue is full). With ``shared_memory``, for a server on the same
    host, pixels and maps do not cross the socket.

    ``grpcs://HOST:PORT`` is TLS, with ``authorities`` (a PEM file) trusted, or those that gRPC brings;
    ``api_key`` is for the gateway, which speaks Triton's protocol too.
    """

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
        self.endpoint = endpoint
        self.version = version
        self.deadline_s = deadline_s
        self.shared_memory = shared_memory
        self._client = wire.connect(InferenceServerClient, endpoint, api_key, authorities)
        self._model = model
        self._manifests: dict[str, Manifest] = {}
        self._regions = Regions()

    @property
    def model(self) -> str:
        """The model's name.

        Raises:
            ClientError: none was given, and not exactly one is loaded, or the server cannot be asked.
        """
        if self._model is None:
            index = self._call(self._client.get_model_repository_index)
            self._model = wire.only_model(wire.ready_models(index))
        return self._model

    def manifest(self) -> Manifest:
        """The manifest of the version that answers.

        Raises:
            ClientError: the model is not loaded, or the server cannot be asked.
        """
        return self._manifest(self._newest())

    def predict(self, photo: Photo, tasks: Sequence[str] | None = None) -> Maps:
        """The maps of ``tasks`` (all by default) for one photo, at model size.

        Raises:
            ClientError: see `clients.errors`.
        """
        pixels = to_pixels(photo, self._manifest(self._known()).input)
        return self.infer(pixels[None], tasks)[0]

    def infer(self, images: NDArray[np.uint8], tasks: Sequence[str] | None = None) -> list[Maps]:
        """The maps of each of ``images`` (uint8 RGB ``[batch, height, width, 3]``, the manifest's size).

        Raises:
            ClientError: see `clients.errors`.
        """
        manifest = self._manifest(self._known())
        selected = wire.select(manifest, tasks)
        wire.check_images(images, manifest)
        try:
            version, maps = self._infer(images, manifest, selected)
        except wire.RegionLostError:
            self._forget()  # the server was started again; with a new region it can answer
            version, maps = self._infer(images, manifest, selected)
        return wire.one_by_one(self._manifest(version), version, maps, len(images))

    def stream(
        self, photos: Iterable[Photo], tasks: Sequence[str] | None = None, in_flight: int = 4
    ) -> Iterator[Outcome]:
        """The outcome of each photo, in order; up to ``in_flight`` are on their way at a time.

        ``photos`` is read as it goes, so that a folder of any size takes the memory of a few photos
        (`clients.photos_in` lists one). A photo that fails does not stop the others.
        """
        waiting: deque[tuple[Photo, Future[Maps]]] = deque()
        with ThreadPoolExecutor(in_flight) as pool:
            for photo in photos:
                waiting.append((photo, pool.submit(self.predict, photo, tasks)))
                if len(waiting) == in_flight:
                    yield _outcome(*waiting.popleft())
            while waiting:
                yield _outcome(*waiting.popleft())

    def close(self) -> None:
        """End the connection and give shared memory back."""
        self._forget()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self) -> str:
        """A version whose manifest is known; all versions of a model take and give the same tensors."""
        if self.version is not None:
            return str(self.version)
        return max(self._manifests, key=int, default="") or self._newest()

    def _newest(self) -> str:
        """The version that the server answers with now."""
        if self.version is not None:
            return str(self.version)
        metadata = self._call(partial(self._client.get_model_metadata, self.model))
        return wire.newest(metadata)

    def _manifest(self, version: str) -> Manifest:
        if version not in self._manifests:
            config = self._call(
                partial(self._client.get_model_config, self.model, "" if self.version is None else version)
            )
            self._manifests = wire.manifests(config)
        return wire.of_version(self._manifests, version)

    def _call(self, function: Callable[..., Any]) -> Any:
        """Call with the deadline, and raise the client's own errors."""
        try:
            return function(client_timeout=self.deadline_s)
        except InferenceServerException as error:
            raise wire.translate(error) from error

    def _infer(
        self, images: NDArray[np.uint8], manifest: Manifest, tasks: Sequence[TaskSpec]
    ) -> tuple[str, dict[str, Map]]:
        """The version that answered, and the maps ``[batch, ...]``."""
        region = self._region(len(images), manifest)
        with self._regions.lend(region):
            inputs, outputs = wire.request(images, tasks, region)
            result = self._call(
                partial(
                    self._client.infer,
                    self.model,
                    inputs,
                    model_version="" if self.version is None else str(self.version),
                    outputs=outputs,
                    timeout=round(1e6 * self.deadline_s),
                )
            )
            return result.get_response().model_version, wire.answer(result, tasks, region)

    def _region(self, batch: int, manifest: Manifest) -> Region | None:
        """A region that nobody else uses; None without shared memory."""
        if not self.shared_memory:
            return None
        region = self._regions.take()
        if region is not None:
            if region.batch == batch:
                return region
            self._unregister(region.name)
            region.close()
        region = Region(batch, manifest.input, manifest.tasks)
        try:
            self._call(
                partial(self._client.register_system_shared_memory, region.name, region.key, region.size)
            )
        except BaseException:
            region.close()
            raise
        return region

    def _forget(self) -> None:
        """Give all regions back that no request uses."""
        for name in self._regions.forget():
            self._unregister(name)

    def _unregister(self, name: str) -> None:
        with suppress(InferenceServerException):  # a server that is gone has forgotten it
            self._client.unregister_system_shared_memory(name, client_timeout=1)


def _outcome(photo: Photo, future: Future[Maps]) -> Outcome:
    try:
        return Outcome(photo, future.result(), None)
    except ClientError as error:
        return Outcome(photo, None, error)
