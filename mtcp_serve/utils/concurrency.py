"""Blocking work beside the event loop, and several things at once, all or none."""

import asyncio
import concurrent.futures
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(func: Callable[[], T], on_cancel: Callable[[], object] = lambda: None) -> T:
    """Run ``func`` in a thread. When the caller is cancelled, call ``on_cancel`` and wait for the thread.

    The wait is what keeps a bound on concurrency honest: a thread cannot be killed, so whoever holds a slot
    for it must keep the slot until the thread is done.
    """
    future = asyncio.get_running_loop().run_in_executor(None, func)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        on_cancel()
        await ended(future)
        raise


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` that an interrupt is sure to cancel.

    Python notes a signal and handles it at the main thread's next instruction. One that comes just before the
    event loop goes to sleep, or to another thread, does not end that sleep: with `asyncio.run` it would be
    handled only when the work in a thread is done, whose cancellation it asks for.
    """

    async def woken() -> T:
        with _signals_wake():
            return await main

    return asyncio.run(woken())


@contextmanager
def _signals_wake() -> Iterator[None]:
    """Have every signal wake the running event loop; what handles it stays as it is."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield  # on Windows the loop sees to it itself
        return
    loop = asyncio.get_running_loop()
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        loop.add_reader(reading, reading.recv, 4096)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reading)


class BackgroundLoop:
    """An event loop in a thread of its own, for blocking callers; the thread starts with the first call.

    It is a daemon: a process may end without closing it. A process that is forked afterwards has no thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._process: int | None = None
        self.closed = False

    @property
    def lost(self) -> bool:
        """Whether the thread is that of the process that this one was forked from."""
        return self._process not in (None, os.getpid())

    def submit(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Start ``work``; cancelling the future cancels it.

        Raises:
            RuntimeError: it is closed, or lost.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._started())
        except RuntimeError:
            work.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``; whatever interrupts the wait cancels it.

        Raises:
            RuntimeError: it is closed, or lost.
        """
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def wrap(self, work: Coroutine[Any, Any, T]) -> T:
        """`run` for the caller's own event loop.

        Raises:
            RuntimeError: it is closed, or lost.
        """
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Cancel what still runs, and end the thread; one that is lost is left alone."""
        if self.lost:
            self.closed = True
            return
        with self._lock:
            self.closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self.lost:
            raise RuntimeError(
                "the model was used before this process was forked, and its threads are not in this one; "
                "load it here, or start the process by spawn"
            )
        self._process = os.getpid()  # before the lock, which a thread may hold when another forks
        with self._lock:
            if self.closed:
                raise RuntimeError("the model is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run ``loop`` until it is stopped, then what belongs to its end."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


async def together(jobs: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of ``jobs``, in their order.

    The first that fails cancels the others; its error is raised when they have ended. With `asyncio.gather`
    they would go on after their request was answered, outside of its slot.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except ExceptionGroup as errors:
        error = errors.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise error


async def ended(work: asyncio.Future[Any]) -> None:
    """Wait until ``work`` is done, however often the caller is cancelled meanwhile; drop its result."""
    while not work.done():
        with suppress(asyncio.CancelledError):  # of the caller, who waits on
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()
