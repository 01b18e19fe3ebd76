"""What a running server holds: the loaded models, and the one way of a request to them."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from starlette.requests import ClientDisconnect

from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import DrainingError, NotReadyError, OverloadedError, VersionLostError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.registry import Models
from mtcp_serve.inference.timings import Timings
from mtcp_serve.server.admission import Admission, Uploads
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.reloading import Reloader
from mtcp_serve.server.security.tls import Tls
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.concurrency import in_thread
from mtcp_serve.utils.memory import give_back

B = TypeVar("B")
T = TypeVar("T")
CLOSING_S = 5
"""Seconds for HTTP and for gRPC to close their connections, when what was accepted is done."""
_LOOK_S = 0.02  # how often draining looks whether it is done


class Service:
    """The models, the admission of requests to them, the threads of the encoders, and the settings.

    Raises:
        BundleError: two engines' models have the same name.
    """

    def __init__(self, settings: Settings, engines: Sequence[Engine], metrics: Metrics) -> None:
        self.settings = settings
        self.limits = settings.image_limits
        self.metrics = metrics
        self.models = self._models(engines)
        self.reloader = Reloader(self)
        self.admission = Admission(settings.concurrency, settings.queue_size, settings.deadline_s)
        self.uploads = Uploads(settings.max_concurrent_uploads, settings.upload_s)
        self.pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mtcp-map")
        self.leaving = False
        """Whether the server is about to drain: it still takes requests, and says that it is not ready."""
        self.draining = False
        self.tls: Tls | None = None
        """The certificate and key that a reload has found; ``None`` before one."""
        self.responses = 0
        """Responses being sent."""
        self.leavers: list[Callable[[], Awaitable[None]]] = []
        """Called by `leave`."""
        self._streams: list[Callable[[DrainingError], None]] = []
        self.observers: list[Callable[[Timings], None]] = [metrics.image]
        """Told the timings of every image."""
        metrics.watch(
            queue=lambda: self.admission.waiting,
            running=lambda: self.admission.running,
            uploads=lambda: self.uploads.running,
            responses=lambda: self.responses,
            streams=lambda: len(self._streams),
            overdue=lambda: self.admission.overdue,
            ready=lambda: self.unready is None,
        )

    async def __aenter__(self) -> Self:
        """Warm every model up."""
        await self.models.warm_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the work in flight end."""
        await self.drain()
        await self.reloader.close()
        await self.models.close()
        self.pool.shutdown()

    @property
    def ending(self) -> bool:
        """Whether the server is about to drain, or does: whoever has a connection is to leave it."""
        return self.leaving or self.draining

    @property
    def unready(self) -> NotReadyError | None:
        """Why a balancer should send requests elsewhere; ``None`` while they are welcome here.

        One slot past its deadline leaves the others to work; with every slot so, nothing is answered.
        """
        if self.ending:
            return DrainingError("the server is shutting down")
        overdue = self.admission.overdue
        if overdue >= self.admission.concurrency:
            held = (
                "1 request is past its deadline and still holds"
                if overdue == 1
                else f"{overdue} requests are past their deadline and still hold"
            )
            return NotReadyError(f"{held} every slot")
        return None

    async def handle(
        self,
        read: Callable[[], Awaitable[B]],
        work: Callable[[B, "Turn", Models], Awaitable[T]],
        disconnected: Callable[[], Awaitable[object]] | None = None,
    ) -> tuple[T, "Turn"]:
        """Everything that happens to a request for maps, whichever protocol it came by.

        It is refused while the server drains or is full, its body is read in one of the places for uploads,
        it waits for a slot, ``work`` makes the response, and its images are counted. ``read`` returns the
        body, and ``work`` is given it with its `Turn` and the models, which a reload does not close before
        ``work`` has ended. Where Triton has their versions no longer, it is called once more with those that
        `Reloader.recover` finds. When ``disconnected`` returns, the client is gone, and the work is
        cancelled; a cancelled call cancels it as well.

        Returns:
            What ``work`` returned, and its turn.

        Raises:
            DrainingError: the server is shutting down.
            OverloadedError: too many requests are being read, worked on, waiting or answered.
            UploadTimeoutError: ``read`` took too long.
            DeadlineError: ``work`` was not done in time.
            VersionLostError: Triton has other versions, which cannot be served.
            ClientDisconnect: the client disconnected; the request has left the queue.
            RequestError: ``read`` or ``work`` raised it.
        """
        self._check()
        async with self.uploads.reading():
            body = await read()
        turn, models = Turn(), self.models

        async def in_turn() -> T:
            nonlocal models
            turn.begin()
            with self.models.lease() as models:
                return await work(body, turn, models)

        async def recover(error: VersionLostError) -> None:
            await self.reloader.recover(models, error)

        result = await self._run(partial(self.admission.run, in_turn, recover), disconnected)
        for timings in turn.images:
            for observer in self.observers:
                observer(timings)
        return result, turn

    @contextmanager
    def streaming(self, finish: Callable[[DrainingError], None]) -> Iterator[None]:
        """Count a stream while the block lasts; when draining begins, ``finish`` is called with the reason.

        Raises:
            OverloadedError: there are as many as bodies may be read.
        """
        if len(self._streams) >= self.settings.max_concurrent_uploads:
            raise OverloadedError(f"{len(self._streams)} streams are open, the most that may")
        self._streams.append(finish)
        try:
            yield
        finally:
            self._streams.remove(finish)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a response while the block lasts: it stays in memory until its client has taken it."""
        self.responses += 1
        try:
            yield
        finally:
            self.responses -= 1

    async def leave(self) -> None:
        """Send those who keep a connection elsewhere, before new requests are refused."""
        for leaver in self.leavers:
            await leaver()

    async def drain(self) -> None:
        """Refuse new requests, and wait for those that were accepted, and for the ends of streams."""
        self.draining = True
        for finish in self._streams:
            finish(DrainingError("the server is shutting down"))
        while self.uploads.running or self.admission.jobs or self.responses or self._streams:
            await asyncio.sleep(_LOOK_S)

    async def reload(self, load: Callable[[], Sequence[Engine]]) -> None:
        """Serve what ``load`` opens from now on; requests that are being answered keep their model.

        The new models are warmed up in a slot of a request, so that memory is that of ``concurrency``
        inferences during a reload as well.

        Raises:
            BundleError: ``load`` raised it, or names clash; the models stay as they were.
        """
        models = self._models(await in_thread(load))
        try:
            await self.admission.run_between(models.warm_up)
        except BaseException:
            await models.close()
            raise
        before, self.models = self.models, models
        await before.close()
        del before
        await in_thread(give_back)

    def _check(self) -> None:
        if self.draining:
            raise DrainingError("the server is shutting down")
        if self.responses >= self.settings.max_concurrent_uploads:
            raise OverloadedError(f"{self.responses} responses are being sent, the most that may")
        self.admission.check()

    async def _run(
        self,
        job: Callable[[], Coroutine[Any, Any, T]],
        disconnected: Callable[[], Awaitable[object]] | None,
    ) -> T:
        """Run ``job``, unless the client disconnects before it is done."""
        if disconnected is None:
            return await job()
        work = asyncio.create_task(job())
        gone = asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            work.cancel()
            gone.cancel()

    def _models(self, engines: Sequence[Engine]) -> Models:
        return Models(
            Batcher(
                engine,
                self.settings.max_batch_size,
                self.settings.max_queue_delay_ms / 1000,
                partial(self.metrics.batch, engine.manifest.name),
            )
            for engine in engines
        )


class Turn:
    """A request on its way through the service: when it arrived, and what its images' time is spent on."""

    def __init__(self) -> None:
        self.images: list[Timings] = []
        self._arrival = time.perf_counter()
        self._start = self._arrival

    def begin(self) -> None:
        """Say that the wait for a slot is over; the work begins, perhaps anew."""
        self._start = time.perf_counter()
        self.images.clear()

    def timings(self, images: int) -> list[Timings]:
        """New timings for ``images`` of the request; each begins with the wait."""
        made = [Timings() for _ in range(images)]
        for each in made:
            each.add("queue", self._arrival, self._start)
        self.images += made
        return made
