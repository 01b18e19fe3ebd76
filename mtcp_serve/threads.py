"""Blocking work beside the event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

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
        while not future.done():
            with suppress(asyncio.CancelledError):  # cancelled once more: the thread is still there
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
