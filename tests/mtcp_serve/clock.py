"""An event loop whose clock a test sets forward, so that a time runs out when the test says so."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Clock(asyncio.SelectorEventLoop):
    """It goes as every clock does, and besides by what is added to ``ahead`` (seconds)."""

    ahead = 0.0

    def time(self) -> float:
        """Seconds."""
        return super().time() + self.ahead


def clock() -> Clock:
    """The running one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Clock)
    return loop


async def pass_over(seconds: float) -> None:
    """Set the clock forward, and let everything happen that is due then."""
    clock().ahead += seconds
    for _ in range(10):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on such a loop."""
    with asyncio.Runner(loop_factory=Clock) as runner:
        return runner.run(main)
