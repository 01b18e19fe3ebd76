"""Several things at the same time, all or none."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


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
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()
