"""The shared memory of a Triton client, blocking or asyncio: what is free, and what Triton has to forget."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mtcp_serve.clients import _wire as wire
from mtcp_serve.clients._memory import Region


class Regions:
    """A client's regions that no request uses; threads may share it.

    After a fork the child has those of its parent too, which it leaves alone.
    """

    def __init__(self) -> None:
        self._free: deque[Region] = deque()
        self._abandoned: deque[Region] = deque()
        self.closed = False
        """Whether nothing is kept for a next request any more."""

    def take(self) -> Region | None:
        """A free region, which is the caller's from now on; None if there is none."""
        return _own(self._free.pop)

    @contextmanager
    def lend(self, region: Region | None) -> Iterator[None]:
        """Free ``region`` after a request, unless Triton may still write to it; then it is abandoned."""
        ended = True
        try:
            yield
        except BaseException as error:
            ended = wire.is_answer(error)
            raise
        finally:
            if region is not None and ended and not self.closed:
                self._free.append(region)
            elif region is not None:
                self.abandon(region)

    def abandon(self, region: Region) -> None:
        """Close ``region``, and have it among those that Triton has to forget."""
        region.close()
        self.still_used(region)

    def still_used(self, region: Region) -> None:
        """Have ``region``, which is closed, among those that Triton has to forget."""
        self._abandoned.append(region)

    def abandon_free(self) -> None:
        """Abandon all that are free."""
        while (region := self.take()) is not None:
            self.abandon(region)

    def abandoned(self) -> Iterator[Region]:
        """Those for Triton to forget, each once; one that it still uses may be put back meanwhile."""
        for _ in range(len(self._abandoned)):
            if (region := _own(self._abandoned.popleft)) is not None:
                yield region

    def __len__(self) -> int:
        """How many Triton has yet to forget."""
        return len(self._abandoned)


def _own(pop: Callable[[], Region]) -> Region | None:
    """The next region of this process that ``pop`` gives; other threads take them too."""
    with suppress(IndexError):  # there is none
        while True:
            region = pop()
            if region.own:
                return region
    return None
