"""Micro-batches: images of different requests that wait for the same model are given to it together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.engines.base import Engine
from mtcp_serve.inference.statistics import Statistics
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds.base import Map
from mtcp_serve.utils.concurrency import ended


@dataclass(eq=False)
class _Item:
    """An image on its way through the model."""

    image: NDArray[np.uint8]
    tasks: Sequence[TaskSpec]
    timings: Timings
    answer: asyncio.Future[list[Map]]
    arrival: float = field(default_factory=time.perf_counter)
    batch: "asyncio.Task[None] | None" = None


class Batcher:
    """First come, first served, at most ``max_batch`` at a time, ``engine.parallel`` batches at once.

    A batch starts as soon as the engine is free; with ``max_delay_s`` it waits that long (counted from the
    arrival of its first image) for more, unless it is full. How many images may wait is not decided here:
    `mtcp_serve.server.admission.Admission` bounds the requests. ``on_batch`` is told the size of each batch.
    """

    def __init__(
        self,
        engine: Engine,
        max_batch: int = 1,
        max_delay_s: float = 0.0,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.engine = engine
        self.max_batch = max_batch
        self.statistics = Statistics()
        self._max_delay_s = max_delay_s
        self._on_batch = on_batch
        self._waiting: deque[_Item] = deque()
        self._running: dict[asyncio.Task[None], list[_Item]] = {}
        self._wake: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """Images that no batch has taken yet."""
        return len(self._waiting)

    async def infer(self, image: NDArray[np.uint8], tasks: Sequence[TaskSpec], timings: Timings) -> list[Map]:
        """The maps of ``tasks``, in their order, for one ``image`` (``[height, width, 3]`` uint8 RGB).

        The wait goes into ``timings`` as ``queue``, the batch as ``infer``. A cancelled call leaves the
        queue; a batch whose calls are all cancelled is stopped, and the call that stops it ends after it: a
        request gives its slot back when nothing runs for it any more.
        """
        item = _Item(image, tasks, timings, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._dispatch_after(self._max_delay_s if len(self._waiting) < self.max_batch else 0.0)
        try:
            return await item.answer
        except asyncio.CancelledError:
            await self._forget(item)
            raise

    async def close(self) -> None:
        """Wait until nothing waits or runs any more, then close the engine."""
        while self._running or self._waiting:
            await (asyncio.wait(self._running) if self._running else asyncio.sleep(self._max_delay_s))
        await self.engine.close()

    async def _forget(self, item: _Item) -> None:
        if not item.answer.cancel() and not item.answer.cancelled():
            item.answer.exception()  # nobody else will ask for it
        if item.batch is None:
            self._waiting.remove(item)
        elif all(other.answer.cancelled() for other in self._running.get(item.batch, ())):
            item.batch.cancel()
            await ended(item.batch)

    def _dispatch_after(self, delay: float) -> None:
        """Look at the queue after ``delay`` seconds, or at the time already set if that is earlier."""
        loop = asyncio.get_running_loop()
        if isinstance(self._wake, asyncio.TimerHandle) and loop.time() + delay < self._wake.when():
            self._wake.cancel()
            self._wake = None
        if self._wake is None:
            self._wake = loop.call_later(delay, self._dispatch)

    def _dispatch(self) -> None:
        """Start as many batches as may start now."""
        self._wake = None
        while self._waiting and len(self._running) < self.engine.parallel:
            left = self._waiting[0].arrival + self._max_delay_s - time.perf_counter()
            if len(self._waiting) < self.max_batch and left > 0:
                self._dispatch_after(left)
                return
            items = [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]
            batch = asyncio.create_task(self._run(items))
            self._running[batch] = items
            for item in items:
                item.batch = batch
            batch.add_done_callback(self._ended)

    def _ended(self, batch: asyncio.Task[None]) -> None:
        del self._running[batch]
        if self._waiting:
            self._dispatch()

    async def _run(self, items: Sequence[_Item]) -> None:
        """Infer once for all ``items``, with every task that any of them wants."""
        tasks = {task.name: task for item in items for task in item.tasks}
        start = time.perf_counter()
        try:
            maps = await self.engine.infer(np.stack([item.image for item in items]), list(tasks.values()))
            end = time.perf_counter()
            by_name = dict(zip(tasks, maps, strict=True))
            answers = [[by_name[task.name][index] for task in item.tasks] for index, item in enumerate(items)]
        except Exception as error:
            self._count(items, start, time.perf_counter(), failed=True)
            for item in items:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        self._count(items, start, end, failed=False)
        self._on_batch(len(items))
        for item, answer in zip(items, answers, strict=True):
            if not item.answer.done():
                item.timings.add("queue", item.arrival, start)
                item.timings.add("infer", start, end)
                item.answer.set_result(answer)

    def _count(self, items: Sequence[_Item], start: float, end: float, failed: bool) -> None:
        self.statistics.add([start - item.arrival for item in items], end - start, failed)
