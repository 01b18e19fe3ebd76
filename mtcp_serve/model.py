"""A model in this process: ``model = mtcp_serve.load(); maps = model.predict("a.jpg")``."""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from os import PathLike
from typing import Any

from numpy.typing import ArrayLike

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.engines.base import Engine, EngineOptions, Precision, Provider
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.distances import Distances, check_measurable
from mtcp_serve.inference.images import DEFAULT_LIMITS, DecodedImage, ImageLimits
from mtcp_serve.inference.pipeline import (
    Size,
    check_asked,
    check_in_flight,
    check_maps,
    check_refine,
    enough_for,
    infer_maps,
    input_sizes,
    measured,
    refined,
)
from mtcp_serve.inference.registry import Choice, Models, with_confidence
from mtcp_serve.inference.sources import ImageSource, take, to_image
from mtcp_serve.inference.timings import Timings
from mtcp_serve.prediction import Prediction
from mtcp_serve.utils.closing import Closing
from mtcp_serve.utils.concurrency import BackgroundLoop, in_thread


def load(
    bundle: str | PathLike[str] | Bundle | None = None,
    *,
    engine: str = "auto",
    provider: Provider = "auto",
    threads: int = 0,
    precision: Precision = "auto",
    streams: int = 0,
    max_batch_size: int = 1,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> "Model":
    """Open a bundle (by default the one in the package) to predict with in this process.

    Args:
        bundle: its folder, or the bundle.
        engine: what runs the network, of `mtcp_serve.engines.loading.ENGINES`; ``auto`` is the first.
        provider: where: ``cpu``, ``cuda``, ``tensorrt``; ``auto`` is CUDA where that can be started.
        threads: CPU threads for one inference; 0 leaves it to the engine.
        precision: what the engine ``openvino`` computes in: ``fp32``, ``bf16``; ``auto`` is bf16 where the
            processor has it.
        streams: inferences at the same time on a CPU; 0 is one.
        max_batch_size: images that the network is given at a time, where several wait; of use on a GPU.
        limits: the largest image that is read, and the largest maps that are made of one.

    Raises:
        BundleError: there is no such bundle or engine, the bundle is damaged, or it cannot be run.
        ValueError: a number is less than it may be.
    """
    for name, number, least in (
        ("threads", threads, 0),
        ("streams", streams, 0),
        ("max_batch_size", max_batch_size, 1),
    ):
        if number < least:
            raise ValueError(f"{name} is {number}, it must be at least {least}")
    opened = (
        bundle if isinstance(bundle, Bundle) else Bundle.open(DEFAULT_BUNDLE if bundle is None else bundle)
    )
    options = EngineOptions(provider, threads, precision, streams)
    return Model(load_engine(opened, engine, options), max_batch_size, limits)


class Model(Closing):
    """A loaded model; make one with `load`. Threads and event loops may share it, processes not: one that is
    forked, or spawned, loads its own.

    Use it in a ``with`` statement, or `close` it, where it should not live as long as the process.
    """

    def __init__(self, engine: Engine, max_batch_size: int = 1, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self.manifest: Manifest = engine.manifest
        """Everything that is known about the model."""
        self.device: str = engine.device
        """Where it runs: ``cpu``, ``cuda``, ``tensorrt``."""
        self._limits = limits
        self._models = Models([Batcher(engine, max_batch_size)])
        self._loop = BackgroundLoop("mtcp-model")

    def __repr__(self) -> str:
        name = f"{self.manifest.name} {self.manifest.version}"
        return f"<Model {name} on {self.device}: {', '.join(self.tasks)}>"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return tuple(task.name for task in self.manifest.tasks)

    def predict(
        self,
        image: ImageSource,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: ArrayLike | None = None,
    ) -> Prediction:
        """The maps of ``tasks`` (all by default), as large as the image or, with ``model``, as the network's.

        ``camera`` says what took the image, where its EXIF does not. With ``confidence`` the prediction says
        how sure the model is of each map that it knows that of (`Prediction.confidence`). With ``refine``
        classes, depth and probabilities are brought to the size of the image along its edges. ``distances``
        that are known, ``[(x, y, metres), ...]`` in pixels of the upright image and along the optical axis,
        correct the depth (`mtcp_serve.inference.distances`).

        Raises:
            OSError: the file cannot be read.
            RequestError: the image cannot be used, there is no such task, the model does not say how sure it
                is of any of them, maps of the model's size are to be refined, or ``distances`` are none of
                the image or none for the tasks.
            TypeError: ``image`` is none of `mtcp_serve.inference.sources.ImageSource`.
            RuntimeError: the model is closed, or this process was forked after it was used.
        """
        choices = self._choices(tasks, size, confidence, refine)
        known = _known(distances, choices)
        return self._loop.run(self._predict(image, choices, size, camera, refine, known))

    async def apredict(
        self,
        image: ImageSource,
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
        distances: ArrayLike | None = None,
    ) -> Prediction:
        """`predict` for asyncio: the event loop goes on meanwhile. Cancelling it stops the inference."""
        choices = self._choices(tasks, size, confidence, refine)
        known = _known(distances, choices)
        return await self._loop.wrap(self._predict(image, choices, size, camera, refine, known))

    def predict_batch(
        self,
        images: Iterable[ImageSource],
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
    ) -> list[Prediction]:
        """The predictions for ``images``, in their order; decoding and inference overlap.

        ``camera`` says what took all of them.

        Raises:
            OSError, RequestError, TypeError, RuntimeError: as `predict`, for the first image that fails.
        """
        found = self.stream(images, tasks, size=size, camera=camera, confidence=confidence, refine=refine)
        return list(found)

    def stream(
        self,
        images: Iterable[ImageSource],
        tasks: Sequence[str] | None = None,
        *,
        size: Size = "input",
        in_flight: int = 4,
        camera: CameraRequest | None = None,
        confidence: bool = False,
        refine: bool = False,
    ) -> Iterator[Prediction]:
        """The predictions for ``images``, in their order, as they come; ``in_flight`` are worked on at once.

        ``images`` is read as it goes, so that any number takes the memory of a few; it may give one buffer,
        filled anew, again and again. ``camera`` says what took all of them.

        Raises:
            ValueError: ``in_flight`` is less than 1.
            OSError, RequestError, TypeError, RuntimeError: as `predict`, for the first image that fails.
        """
        check_in_flight(in_flight)
        choices = self._choices(tasks, size, confidence, refine)
        predict = partial(self._predict, choices=choices, size=size, camera=camera, refine=refine)
        return self._stream(iter(images), predict, in_flight)

    def close(self) -> None:
        """Finish what is being predicted, and release the engine. Closing it again does nothing."""
        if self._loop.closed:
            return
        if not self._loop.lost:
            self._loop.run(self._models.close())
        self._loop.close()

    def _choices(
        self, tasks: Sequence[str] | None, size: Size, confidence: bool, refine: bool
    ) -> tuple[Choice, ...]:
        check_asked(tasks, size)
        if refine:
            check_refine(size)
        choices = self._models.select(tasks)
        return with_confidence(choices) if confidence else choices

    def _stream(
        self,
        images: Iterator[ImageSource],
        predict: Callable[[ImageSource], Coroutine[Any, Any, Prediction]],
        in_flight: int,
    ) -> Iterator[Prediction]:
        jobs = (self._loop.submit(predict(take(image, self._limits))) for image in images)
        waiting = list(islice(jobs, in_flight))
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += islice(jobs, 1)
        finally:
            for left in waiting:
                left.cancel()

    async def _predict(
        self,
        image: ImageSource,
        choices: tuple[Choice, ...],
        size: Size,
        camera: CameraRequest | None,
        refine: bool,
        distances: Distances | None = None,
    ) -> Prediction:
        timings = Timings()
        sizes = input_sizes(choices)
        with self._models.lease():
            with timings.measure("decode"):
                read = partial(to_image, image, self._limits, enough_for(sizes))
                decoded: DecodedImage = await in_thread(read)
                check_maps(decoded.info, size, self._limits)
                if distances is not None:
                    distances.check(decoded.info)
                pixels = await in_thread(lambda: {each: decoded.resized(*each) for each in sizes})
            found = await infer_maps(decoded.info, pixels, choices, size, timings, camera)
            if distances is not None:
                found = await in_thread(partial(measured, found, distances))
            if refine:
                found = refined(found, decoded)
            return await in_thread(partial(Prediction.of, found, decoded))


def _known(distances: ArrayLike | None, choices: Sequence[Choice]) -> Distances | None:
    if distances is None:
        return None
    check_measurable(choice.task for choice in choices)
    return Distances.of(distances)
