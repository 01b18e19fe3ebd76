"""A blocking client for Triton over gRPC; threads may share one."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.clients import _wire as wire
from mtcp_serve.clients._conversation import Client, Outcome, Pause, Steps, read_distances, read_image
from mtcp_serve.clients.errors import ClientError
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.pipeline import Size, check_in_flight
from mtcp_serve.inference.sources import ImageSource, take
from mtcp_serve.prediction import Prediction
from mtcp_serve.utils.closing import Closing

T = TypeVar("T")


class TritonClient(Client, Closing):
    """Predictions of a model in a repository that ``export.triton`` wrote; use it in a ``with`` statement.

    The manifest comes from the server. ``model`` may be left out where only one is loaded; ``version`` is
    Triton's number, by default the newest. Each request ends within ``deadline_s`` seconds, retries included
    (the first prediction makes up to five: it asks for the model, its version and manifest too); only
    UNAVAILABLE is retried (no server, or its queue is full). With ``shared_memory``, for a server on the same
    host, pixels and maps do not cross the socket.

    ``grpcs://HOST:PORT`` is TLS, with ``authorities`` (a PEM file) trusted, or those that gRPC brings;
    ``api_key`` is for the gateway, which speaks Triton's protocol too.
    """

    _kind = InferenceServerClient

    @property
    def model(self) -> str:
        """The model's name.

        Raises:
            ClientError: none was given, and not exactly one is loaded, or the server cannot be asked.
        """
        return self._run(self._conversation.model())

    def manifest(self) -> Manifest:
        """The manifest of the version that answers.

        Raises:
            ClientError: the model is not loaded, or the server cannot be asked.
        """
        return self._run(self._conversation.manifest())

    def predict(
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
        """The maps of ``tasks`` (all by default) for one image, as the model gives them, or as large as it.

        The version that its metadata names is Triton's number. ``camera`` says what took the image, where its
        EXIF does not; a Triton knows nothing of cameras, so it stays here. With
        ``confidence`` the prediction says how sure the model is of each map that it knows that of. With
        ``refine`` and ``size="input"`` classes, depth and probabilities come to the size of the image along
        its edges. ``distances`` that are known, ``[(x, y, metres), ...]`` in pixels of the upright image and
        along the optical axis, correct the depth; they too stay here.

        Raises:
            ClientError: see `mtcp_serve.clients.errors`.
            RuntimeError: the client is closed.
        """
        known = read_distances(distances)
        decoded, pixels = read_image(image, self._run(self._conversation.known()).input, size)
        steps = self._conversation.infer(pixels, tasks, decoded, size, camera, confidence, refine, known)
        return self._run(steps)[0]

    def infer(
        self, images: NDArray[np.uint8], tasks: Sequence[str] | None = None, *, confidence: bool = False
    ) -> list[Prediction]:
        """The maps of each of ``images`` (uint8 RGB ``[batch, height, width, 3]``, the manifest's size).

        Raises:
            ClientError: see `mtcp_serve.clients.errors`.
        """
        return self._run(self._conversation.infer(images, tasks, confidence=confidence))

    def stream(
        self,
        images: Iterable[ImageSource],
        tasks: Sequence[str] | None = None,
        in_flight: int = 4,
        *,
        camera: CameraRequest | None = None,
        confidence: bool = False,
    ) -> Iterator[Outcome]:
        """The outcome of each image, in order; up to ``in_flight`` are on their way at a time.

        ``images`` is read as it goes, so that a folder of any size takes the memory of a few images
        (`mtcp_serve.clients.images_in` lists one); it may give one buffer, filled anew, again and again. An
        image that fails does not stop the others. ``camera`` says what took all of them.

        Raises:
            ValueError: ``in_flight`` is less than 1.
        """
        check_in_flight(in_flight)
        predict = partial(self.predict, tasks=tasks, camera=camera, confidence=confidence)
        waiting: deque[tuple[ImageSource, Future[Prediction]]] = deque()
        with ThreadPoolExecutor(in_flight) as pool:
            for image in images:
                waiting.append((image, pool.submit(predict, take(image))))
                if len(waiting) == in_flight:
                    yield _outcome(*waiting.popleft())
            while waiting:
                yield _outcome(*waiting.popleft())

    def close(self) -> None:
        """End the connection and give shared memory back; closing it again does nothing.

        Where Triton still works on a request that was given up, this waits for it, for some seconds at most.
        """
        if not self._conversation.closed:
            self._make(self._conversation.close())
            self._conversation.client.close()

    def _run(self, steps: Steps[T]) -> T:
        self._conversation.check_open()
        return self._make(steps)

    def _make(self, steps: Steps[T]) -> T:
        """Make the calls of ``steps``, each with its deadline; the client's own errors are raised."""
        talk = self._conversation
        try:
            call = next(steps)
            while True:
                if isinstance(call, Pause):
                    time.sleep(call.seconds)
                    call = next(steps)
                    continue
                try:
                    given = getattr(talk.client, call.method)(*call.arguments, **talk.options(call))
                except InferenceServerException as error:
                    call = steps.throw(wire.translate(error))
                except BaseException as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(given)
        except StopIteration as done:
            result: T = done.value
            return result


def _outcome(image: ImageSource, future: Future[Prediction]) -> Outcome:
    try:
        return Outcome(image, future.result(), None)
    except ClientError as error:
        return Outcome(image, None, error)
