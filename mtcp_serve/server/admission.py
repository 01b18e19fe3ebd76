"""Which requests are read, which are worked on, which wait, and which are rejected."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from mtcp_serve.errors import DeadlineError, OverloadedError, UploadTimeoutError, VersionLostError

T = TypeVar("T")


class Admission:
    """``concurrency`` jobs run, at most ``queue`` wait, and none is waited for beyond ``deadline_s``."""

    def __init__(self, concurrency: int, queue: int, deadline_s: float) -> None:
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._limit = concurrency + queue
        self._deadline_s = deadline_s
        self._jobs: dict[asyncio.Task[object], float] = {}
        self.running = 0
        """Jobs that have a slot."""
        self._between = self._recovering = 0

    @property
    def jobs(self) -> int:
        """Jobs that run or wait."""
        return len(self._jobs)

    @property
    def waiting(self) -> int:
        """Jobs that have no slot, nor one that is free and theirs as soon as the event loop comes to them."""
        free = self.concurrency - self.running - self._between
        return max(self.jobs - self.running - free, self._recovering)

    @property
    def overdue(self) -> int:
        """Jobs that are past their deadline and not done: a thread cannot be killed, and keeps its slot."""
        now = time.monotonic()
        return sum(deadline < now for deadline in self._jobs.values())

    def check(self) -> None:
        """Tell early, before a body is read, that `run` would refuse.

        Raises:
            OverloadedError: every slot is taken and the queue is full.
        """
        if self.jobs >= self._limit:
            raise OverloadedError(f"{self._limit} requests are running or waiting, the most that may")

    async def run(
        self,
        job: Callable[[], Awaitable[T]],
        recover: Callable[[VersionLostError], Awaitable[None]] | None = None,
    ) -> T:
        """Wait for a slot, then run ``job``; a cancelled or late job is cancelled, and leaves the queue.

        One that raises `VersionLostError` waits for ``recover`` without a slot, and is run once more; one
        deadline is for all of that.

        Raises:
            OverloadedError: every slot is taken and the queue is full.
            DeadlineError: the job was not done ``deadline_s`` seconds after this call. It keeps its slot
                until the thread it is in has ended.
        """
        self.check()
        task = asyncio.create_task(self._twice(job, recover))
        self._jobs[task] = time.monotonic() + self._deadline_s
        task.add_done_callback(self._jobs.pop)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._deadline_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise DeadlineError(f"the response was not ready within {self._deadline_s:g} s")
        return task.result()

    async def run_between(self, job: Callable[[], Awaitable[T]]) -> T:
        """Run a job of the server's own in a slot, so that it never computes beside ``concurrency`` others.

        It waits its turn like a request, is none (it counts neither as running nor as waiting, and no bound
        refuses it), and begins without a slot when none was free for ``deadline_s``: what replaces an engine
        whose threads are stuck must not wait for them.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._slots.acquire()
        except TimeoutError:
            return await job()
        self._between += 1
        try:
            return await job()
        finally:
            self._between -= 1
            self._slots.release()

    async def drain(self) -> None:
        """Wait until no job is running or waiting."""
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await asyncio.sleep(0)  # from Python 3.12 on, done jobs are gathered before their callbacks have run

    async def _twice(
        self,
        job: Callable[[], Awaitable[T]],
        recover: Callable[[VersionLostError], Awaitable[None]] | None,
    ) -> T:
        try:
            return await self._in_slot(job)
        except VersionLostError as error:
            if recover is None:
                raise
            self._recovering += 1
            try:
                await recover(error)
            finally:
                self._recovering -= 1
        return await self._in_slot(job)

    async def _in_slot(self, job: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            self.running += 1
            try:
                return await job()
            finally:
                self.running -= 1


class Uploads:
    """At most ``limit`` request bodies are read at the same time, each for ``seconds`` at most.

    Bodies wait in memory, and a slow client holds on to what it has sent: this is the bound on both.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self.running = 0
        """Bodies that are being read."""

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read a body within the ``async with`` block.

        Raises:
            OverloadedError: ``limit`` others are being read.
            UploadTimeoutError: the block took longer than ``seconds``.
        """
        if self.running >= self._limit:
            raise OverloadedError(f"{self._limit} request bodies are being read, the most that may")
        self.running += 1
        try:
            async with asyncio.timeout(self._seconds) as timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise UploadTimeoutError(f"the body was not complete within {self._seconds:g} s") from error
        finally:
            self.running -= 1
