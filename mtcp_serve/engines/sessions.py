"""A session for a call that has the processor to itself, and one for calls that share it."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from mtcp_serve.errors import BundleError
from mtcp_serve.utils.concurrency import in_thread

S = TypeVar("S")
TOGETHER = 2
"""Calls at a time where nobody chose a number: on a processor each more takes the memory of one more."""
LULL_S = 0.5
"""Seconds after a call that met another in which the next is one of theirs: encoding comes between them."""
_log = logging.getLogger(__name__)


class Sessions(Generic[S]):
    """Two ways to run one graph: threads that work together on a call, and calls beside each other.

    Threads that share a call wait for each other at every node, calls of a thread each do not; but a call
    that is alone is done sooner by all threads. So ``alone`` runs a call that begins when no other runs, nor
    has run beside another just before, and what ``open_shared`` gives runs the others. It is opened by the
    first call that meets another, in a thread; until it is there, ``alone`` runs all. If it raises a
    `BundleError`, ``alone`` does for good. ``clock`` gives seconds.
    """

    def __init__(
        self,
        alone: S,
        open_shared: Callable[[], S] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.alone: S | None = alone
        """Where a call that is alone runs; None once closed."""
        self.shared: S | None = None
        """Where several calls run, once it is open."""
        self._open_shared = open_shared
        self._opening: Future[None] | None = None
        self.clock = clock
        self._running = 0
        self._meetings = 0
        self._lull_ends = -math.inf

    @contextmanager
    def borrow(self) -> Iterator[S]:
        """The session for a call that lasts as long as the block.

        Raises:
            RuntimeError: they are closed.
        """
        if self.alone is None:
            raise RuntimeError("the model is closed")
        met = self._running > 0
        self._meetings += met
        seen = self._meetings
        self._running += 1
        try:
            if not met and self.clock() >= self._lull_ends:
                yield self.alone
            elif self.shared is None:
                self._begin_opening()
                yield self.alone
            else:
                yield self.shared
        finally:
            self._running -= 1
            if met or seen != self._meetings:
                self._lull_ends = self.clock() + LULL_S

    async def opened(self) -> None:
        """Wait until nothing is being opened any more."""
        if self._opening is not None:
            await in_thread(self._opening.result)

    async def close(self) -> None:
        """Let go of both."""
        self._open_shared = None
        await self.opened()
        self.alone = self.shared = None

    def _begin_opening(self) -> None:
        if self._open_shared is None:
            return
        opener, self._open_shared = self._open_shared, None

        def work() -> None:
            try:
                self.shared = opener()
            except BundleError as error:
                _log.warning("requests that come together share one session: %s", error)

        worker = ThreadPoolExecutor(1, thread_name_prefix="mtcp-open")
        self._opening = worker.submit(work)
        worker.shutdown(wait=False)


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def calls_together(threads: int, streams: int) -> int:
    """Calls at a time on a processor: ``streams``, or for 0 as many as ``threads`` (0: the cores) are for."""
    return streams or min(TOGETHER, threads or cores())
