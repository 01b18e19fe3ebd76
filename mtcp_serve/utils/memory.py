"""What glibc does with memory that this process no longer uses. Other C libraries are left as they are."""

import ctypes
import gc
import os
import sys
from functools import cache
from typing import Final

ARENAS: Final = 1
"""Heaps that threads share. By default there are eight for each core, each as large as its busiest moment."""
LARGE_BYTES: Final = 4 * 2**20
"""A block of so many bytes is taken from the system, and returned to it when it is freed."""
KEPT_BYTES: Final = 32 * 2**20
"""So much free memory at the end of a heap stays there, for the next request: it need not be cleared anew."""
_Choices = dict[int, tuple[str, str, int]]
"""By what mallopt calls it (malloc.h): what the environment does, what glibc's tunables do, and the value."""
_BOUNDED: Final[_Choices] = {
    -8: ("MALLOC_ARENA_MAX", "glibc.malloc.arena_max", ARENAS),
    -3: ("MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold", LARGE_BYTES),
    -1: ("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold", KEPT_BYTES),
}
_KEPT: Final[_Choices] = {
    -4: ("MALLOC_MMAP_MAX_", "glibc.malloc.mmap_max", 0),
    -1: ("MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold", -1),
}


@cache
def bound_heaps() -> None:
    """Have this process keep little of what it frees, from now on.

    By default glibc learns to keep blocks of up to 32 MiB, in a heap for every few threads; those of a server
    fill up one after the other, and weights of a model that is no longer served lie between them. What the
    operator has chosen in the environment (``MALLOC_ARENA_MAX`` and so on, ``GLIBC_TUNABLES``) is left.
    """
    _choose(_BOUNDED)


@cache
def keep_freed() -> None:
    """Have this process keep all that it frees for what it asks for next: for work in rounds of equal size.

    By default glibc takes every block above 32 MiB from the system, which clears it page by page, and returns
    it when it is freed. A training step on a CPU frees and asks for gigabytes of such blocks. What the
    operator has chosen in the environment is left.
    """
    _choose(_KEPT)


def _choose(choices: _Choices) -> None:
    choose = _glibc("mallopt")
    if choose is None:
        return
    for parameter, (variable, tunable, value) in choices.items():
        if variable not in os.environ and tunable not in os.environ.get("GLIBC_TUNABLES", ""):
            choose(parameter, value)


def give_back() -> None:
    """Free what only holds on to itself, and have glibc return what is free.

    A failed request is such a circle: its error holds the frames it came through, and they the error; one of
    them may be the last to hold a model that is no longer served. And the memory of a model stays in the
    heaps of the threads that loaded it: by glibc's defaults an idle server had 534 MB after ten reloads, and
    231 MB with this.
    """
    gc.collect()
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """A function of glibc's; None where there is none (musl, other systems)."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
