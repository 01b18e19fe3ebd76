"""What glibc does with memory that this process no longer uses. Other C libraries are left as they are."""

import ctypes
import gc
import os
import sys
from functools import cache
from typing import Final

LARGE_BYTES: Final = 2**20
"""A block of so many bytes is taken from the system, and returned to it when it is freed."""
_M_MMAP_THRESHOLD: Final = -3  # of malloc.h


@cache
def return_large_blocks() -> None:
    """Have blocks of `LARGE_BYTES` returned to the system as soon as they are freed, from now on.

    By default glibc does so until the first large one is freed; then it keeps all up to that size, in an
    arena for every thread that had one, which fill up one after the other while a server runs. What the
    operator has chosen in the environment (``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``) is left.
    """
    chosen = "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    choose = _glibc("mallopt")
    if choose is not None and not chosen:
        choose(_M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """Free what only holds on to itself, and have glibc return what is free.

    A failed request is such a circle: its error holds the frames it came through, and they the error; one of
    them may be the last to hold a model that is no longer served. And the memory of a model stays in the
    arenas of the threads that loaded it: after ten reloads an idle server had 534 MB, and with this 231 MB.
    """
    gc.collect()
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """A function of glibc's; None where there is none (musl, other systems)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
