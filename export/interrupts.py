"""Interrupts that get lost.

Python raises an interrupt wherever it is, in a finaliser or a callback of a library too, which may drop it.
The work would then go on, and its result take the place of what the user wanted to keep.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_seen = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Remember interrupts inside the block for `check_interrupted`; they are raised as ever."""
    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [
            number
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is signal.default_int_handler
        ]
    for number in ours:
        signal.signal(number, _remember)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)
        if ours:  # else a block around this one remembers
            _seen.clear()


def check_interrupted() -> None:
    """Call it before a result takes its place.

    Raises:
        KeyboardInterrupt: there was one since the block of `remembered` began, and it was lost.
    """
    if _seen.is_set():
        raise KeyboardInterrupt


def _remember(_number: int, _frame: FrameType | None) -> NoReturn:
    _seen.set()
    raise KeyboardInterrupt
