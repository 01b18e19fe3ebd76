"""What a running server holds: the loaded models and the door to them."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import DrainingError, OverloadedError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.inference.registry import Models
from mtcp_serve.inference.timings import Timings
from mtcp_serve.server.admission import Admission, Uploads
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.concurrency import in_thread

T = TypeVar("T")
_LOOK_S = 0.02  # how often draining looks whether it is done


class Service:
    """The models, the admission of requests to them, the threads of the encoders, and the settings.

    Raises:
        BundleError: two engines' models have the same name.
    """

    def __init__(self, settings: Settings, engines: Sequence[Engine], metrics: Metrics) -> None:
        self.settings = settings
        self.limits = ImageLimits.of(settings)
        self.metrics = metrics
        self.models = self._models(engines)
        self.admission = Admission(settings.concurrency, settings.queue, settings.deadline_s)
        self.uploads = Uploads(settings.uploads, settings.upload_s)
        self.pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mtcp-map")
        self.draining = False
        self.answers = 0
        """Answers being sent."""
        self.observers: list[Callable[[Timings], None]] = [metrics.photo]
        """Told the timings of every photo."""
        metrics.watch(self)

    async def __aenter__(self) -> Self:
        """Warm every model up."""
        await self.models.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the work in flight end."""
        await self.drain()
        await self.models.close()
        self.pool.shutdown()

    def check(self) -> None:
        """Tell whether a new request may come in.

        Raises:
            DrainingError: the server is shutting down.
            OverloadedError: the queue is full, or as many answers are being sent as bodies may be read.
        """
        if self.draining:
            raise DrainingError("the server is shutting down")
        if self.answers >= self.settings.uploads:
            raise OverloadedError(f"{self.answers} answers are being sent, the most that may")
        self.admission.check()

    async def run(self, request: Request, job: Callable[[], Awaitable[T]]) -> T:
        """Run ``job`` for ``request``, whose body has been read, when it is its turn.

        Raises:
            RequestError: what `Admission.run` and the job raise.
            ClientDisconnect: the client hung up; the job was cancelled, and has left the queue.
        """
        work = asyncio.create_task(self.admission.run(job))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            work.cancel()
            gone.cancel()

    def photo_done(self, scope: Scope, timings: Timings) -> None:
        """Count what a photo took, for the figures and the log line of its request."""
        scope["state"].setdefault("stages", []).append(timings.ms)
        self.observe(timings)

    def observe(self, timings: Timings) -> None:
        """Count what a photo took, for the figures."""
        for observer in self.observers:
            observer(timings)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count an answer while the block lasts: it stays in memory until its client has taken it."""
        self.answers += 1
        try:
            yield
        finally:
            self.answers -= 1

    async def drain(self) -> None:
        """Refuse new requests, and wait for those that were accepted."""
        self.draining = True
        while self.uploads.running or self.admission.running or self.admission.waiting or self.answers:
            await asyncio.sleep(_LOOK_S)

    async def reload(self, load: Callable[[], Sequence[Engine]]) -> None:
        """Serve what ``load`` opens from now on; requests that are being answered keep their model.

        Raises:
            BundleError: ``load`` raised it, or names clash; the models stay as they were.
        """
        models = self._models(await in_thread(load))
        try:
            await models.warm_up()
        except BaseException:
            await models.close()
            raise
        before, self.models = self.models, models
        await before.close()

    def _models(self, engines: Sequence[Engine]) -> Models:
        return Models(
            Batcher(
                engine,
                self.settings.micro_batch,
                self.settings.micro_batch_delay_ms / 1000,
                self.metrics.batch_size.labels(engine.manifest.name).observe,
            )
            for engine in engines
        )


async def _gone(request: Request) -> None:
    """Return when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
