"""The shared memory of a Triton client, blocking or asyncio: what is free, and what Triton has to forget."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mtcp_serve.clients import _wire as wire
from mtcp_serve.clients._memory import Region


class Regions:
    """A client's regions that no request uses; threads may share it."""

    def __init__(self) -> None:
        self._free: deque[Region] = deque()
        self._abandoned: deque[str] = deque()

    def take(self) -> Region | None:
        """A free region, which is the caller's from now on; None if there is none."""
        with suppress(IndexError):  # there is none
            return self._free.pop()
        return None

    @contextmanager
    def lend(self, region: Region | None) -> Iterator[None]:
        """Free ``region`` after a request, unless Triton may still write to it; then it is only closed."""
        ended = True
        try:
            yield
        except BaseException as error:
            ended = wire.is_answer(error)
            raise
        finally:
            if region is not None and ended:
                self._free.append(region)
            elif region is not None:
                self._abandoned.append(region.name)
                region.close()

    def forget(self) -> Iterator[str]:
        """Close the free regions; the names of all that are closed, each once, for Triton to forget."""
        while (region := self.take()) is not None:
            self._abandoned.append(region.name)
            region.close()
        with suppress(IndexError):  # other threads take them too
            while True:
                yield self._abandoned.pop()
