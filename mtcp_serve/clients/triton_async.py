"""An asyncio client for Triton over gRPC; see `mtcp_serve.clients.triton` for the blocking one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.clients import _wire as wire
from mtcp_serve.clients._conversation import Client, Outcome, Pause, Steps, read_distances, read_image
from mtcp_serve.clients.errors import ClientError
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.pipeline import Size, check_in_flight
from mtcp_serve.inference.sources import ImageSource, take
from mtcp_serve.prediction import Prediction
from mtcp_serve.utils.closing import AsyncClosing

T = TypeVar("T")


class AsyncTritonClient(Client, AsyncClosing):
    """`mtcp_serve.clients.TritonClient` for asyncio: the same parameters, the same methods as coroutines.

    Use it in an ``async with`` statement. It may be made anywhere, and belongs to the event loop of its first
    call. Cancelling a call cancels the request.
    """

    _kind = InferenceServerClient

    async def model(self) -> str:
        """See `mtcp_serve.clients.TritonClient.model`."""
        return await self._run(self._conversation.model())

    async def manifest(self) -> Manifest:
        """See `mtcp_serve.clients.TritonClient.manifest`."""
        return await self._run(self._conversation.manifest())

    async def predict(
        self,
        image: ImageSource,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "model",
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: ArrayLike | None = None,
    ) -> Prediction:
        """See `mtcp_serve.clients.TritonClient.predict`; the image is decoded in a thread."""
        manifest = await self._run(self._conversation.known())
        known = read_distances(distances)
        decoded, pixels = await asyncio.to_thread(read_image, image, manifest.input, size)
        steps = self._conversation.infer(pixels, tasks, decoded, size, camera, confidence, refine, known)
        return (await self._run(steps))[0]

    async def infer(
        self, images: NDArray[np.uint8], tasks: Sequence[str] | None = None, *, confidence: bool = False
    ) -> list[Prediction]:
        """See `mtcp_serve.clients.TritonClient.infer`."""
        return await self._run(self._conversation.infer(images, tasks, confidence=confidence))

    async def stream(
        self,
        images: Iterable[ImageSource],
        tasks: Sequence[str] | None = None,
        in_flight: int = 4,
        *,
        camera: CameraRequest | None = None,
        confidence: bool = False,
    ) -> AsyncIterator[Outcome]:
        """See `mtcp_serve.clients.TritonClient.stream`."""
        check_in_flight(in_flight)
        predict = partial(self.predict, tasks=tasks, camera=camera, confidence=confidence)
        waiting: deque[tuple[ImageSource, asyncio.Task[Prediction]]] = deque()
        try:
            for image in images:
                taken = await asyncio.to_thread(take, image)
                waiting.append((image, asyncio.create_task(predict(taken))))
                if len(waiting) == in_flight:
                    yield await _outcome(*waiting.popleft())
            while waiting:
                yield await _outcome(*waiting.popleft())
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    async def close(self) -> None:
        """See `mtcp_serve.clients.TritonClient.close`."""
        if not self._conversation.closed:
            await self._make(self._conversation.close())
            await self._conversation.client.close()

    async def _run(self, steps: Steps[T]) -> T:
        self._conversation.check_open()
        return await self._make(steps)

    async def _make(self, steps: Steps[T]) -> T:
        """Make the calls of ``steps``, each with its deadline; the client's own errors are raised."""
        talk = self._conversation
        try:
            call = next(steps)
            while True:
                if isinstance(call, Pause):
                    await asyncio.sleep(call.seconds)
                    call = next(steps)
                    continue
                try:
                    given = await getattr(talk.client, call.method)(*call.arguments, **talk.options(call))
                except InferenceServerException as error:
                    call = steps.throw(wire.translate(error))
                except BaseException as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(given)
        except StopIteration as done:
            result: T = done.value
            return result


async def _outcome(image: ImageSource, task: asyncio.Task[Prediction]) -> Outcome:
    try:
        return Outcome(image, await task, None)
    except ClientError as error:
        return Outcome(image, None, error)
