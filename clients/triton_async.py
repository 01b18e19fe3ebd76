"""An asyncio client for Triton over gRPC; see `clients.triton` for the blocking one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from clients import _wire as wire
from clients._maps import Map, Maps, Outcome
from clients._memory import Region
from clients._photos import Photo, to_pixels
from clients._regions import Regions
from clients.errors import ClientError
from mtcp_serve.bundle.manifest import Manifest, TaskSpec


class AsyncTritonClient:
    """`clients.TritonClient` for asyncio: the same parameters, the same methods as coroutines.

    Use it in an ``async with`` statement, in one event loop. Cancelling a call cancels the request.
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

    async def model(self) -> str:
        """See `clients.TritonClient.model`."""
        if self._model is None:
            index = await self._call(self._client.get_model_repository_index)
            self._model = wire.only_model(wire.ready_models(index))
        return self._model

    async def manifest(self) -> Manifest:
        """See `clients.TritonClient.manifest`."""
        return await self._manifest(await self._newest())

    async def predict(self, photo: Photo, tasks: Sequence[str] | None = None) -> Maps:
        """See `clients.TritonClient.predict`; the photo is decoded in a thread."""
        manifest = await self._manifest(await self._known())
        pixels = await asyncio.to_thread(to_pixels, photo, manifest.input)
        return (await self.infer(pixels[None], tasks))[0]

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[str] | None = None) -> list[Maps]:
        """See `clients.TritonClient.infer`."""
        manifest = await self._manifest(await self._known())
        selected = wire.select(manifest, tasks)
        wire.check_images(images, manifest)
        try:
            version, maps = await self._infer(images, manifest, selected)
        except wire.RegionLostError:
            await self._forget()
            version, maps = await self._infer(images, manifest, selected)
        return wire.one_by_one(await self._manifest(version), version, maps, len(images))

    async def stream(
        self, photos: Iterable[Photo], tasks: Sequence[str] | None = None, in_flight: int = 4
    ) -> AsyncIterator[Outcome]:
        """See `clients.TritonClient.stream`."""
        waiting: deque[tuple[Photo, asyncio.Task[Maps]]] = deque()
        try:
            for photo in photos:
                waiting.append((photo, asyncio.create_task(self.predict(photo, tasks))))
                if len(waiting) == in_flight:
                    yield await _outcome(*waiting.popleft())
            while waiting:
                yield await _outcome(*waiting.popleft())
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    async def close(self) -> None:
        """See `clients.TritonClient.close`."""
        await self._forget()
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _known(self) -> str:
        if self.version is not None:
            return str(self.version)
        return max(self._manifests, key=int, default="") or await self._newest()

    async def _newest(self) -> str:
        if self.version is not None:
            return str(self.version)
        metadata = await self._call(partial(self._client.get_model_metadata, await self.model()))
        return wire.newest(metadata)

    async def _manifest(self, version: str) -> Manifest:
        if version not in self._manifests:
            asked = "" if self.version is None else version
            config = await self._call(partial(self._client.get_model_config, await self.model(), asked))
            self._manifests = wire.manifests(config)
        return wire.of_version(self._manifests, version)

    async def _call(self, function: Callable[..., Awaitable[Any]]) -> Any:
        try:
            return await function(client_timeout=self.deadline_s)
        except InferenceServerException as error:
            raise wire.translate(error) from error

    async def _infer(
        self, images: NDArray[np.uint8], manifest: Manifest, tasks: Sequence[TaskSpec]
    ) -> tuple[str, dict[str, Map]]:
        region = await self._region(len(images), manifest)
        with self._regions.lend(region):
            inputs, outputs = wire.request(images, tasks, region)
            result = await self._call(
                partial(
                    self._client.infer,
                    await self.model(),
                    inputs,
                    model_version="" if self.version is None else str(self.version),
                    outputs=outputs,
                    timeout=round(1e6 * self.deadline_s),
                )
            )
            return result.get_response().model_version, wire.answer(result, tasks, region)

    async def _region(self, batch: int, manifest: Manifest) -> Region | None:
        if not self.shared_memory:
            return None
        region = self._regions.take()
        if region is not None:
            if region.batch == batch:
                return region
            region.close()
            await self._unregister(region.name)
        region = Region(batch, manifest.input, manifest.tasks)
        try:
            await self._call(
                partial(self._client.register_system_shared_memory, region.name, region.key, region.size)
            )
        except BaseException:
            region.close()
            raise
        return region

    async def _forget(self) -> None:
        for name in self._regions.forget():
            await self._unregister(name)

    async def _unregister(self, name: str) -> None:
        with suppress(InferenceServerException):  # a server that is gone has forgotten it
            await self._client.unregister_system_shared_memory(name, client_timeout=1)


async def _outcome(photo: Photo, task: asyncio.Task[Maps]) -> Outcome:
    try:
        return Outcome(photo, await task, None)
    except ClientError as error:
        return Outcome(photo, None, error)
