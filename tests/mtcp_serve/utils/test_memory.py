"""Memory that glibc is to return, and that it is to keep."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.needs import needs_linux

pytestmark = needs_linux
CHOICES = (
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "GLIBC_TUNABLES",
)
PRELUDE = """
import ctypes, re, threading
from mtcp_serve.utils.memory import CHOICE

libc = ctypes.CDLL(None)

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc.mallinfo2.restype = Mallinfo2
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
CHOICE()
"""
LARGE = """
libc.free(libc.malloc(16 << 20))  # by default glibc learns from it to keep what is smaller
before = libc.mallinfo2().hblks
block = libc.malloc(6 << 20)
print(libc.mallinfo2().hblks - before)
"""
"""How many blocks of 6 MiB come from the system."""
TOP = """
libc.free(libc.malloc(16 << 20))
blocks = [libc.malloc(1 << 20) for _ in range(16)]
for block in blocks:
    libc.free(block)
print(libc.mallinfo2().keepcost >> 20)
"""
"""MiB that stay at the end of the heap when 16 are freed."""
HEAPS = """
done = threading.Barrier(13)

def work():
    block = libc.malloc(100_000)
    done.wait()
    libc.free(block)

threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
done.wait()
for thread in threads:
    thread.join()
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fdopen.restype, libc.fflush.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
"""
"""What glibc says of its heaps when twelve threads have had memory at the same time."""


ROUNDS = """
def work():
    blocks = [libc.malloc(size << 20) for size in (40, 48, 64)]
    mapped = libc.mallinfo2().hblks
    for block in blocks:
        libc.free(block)
    return mapped

before = libc.mallinfo2().hblks
mapped = work() - before
heap = libc.mallinfo2().arena
work()
print(mapped, heap >> 20, libc.mallinfo2().arena - heap)
"""
"""How many of three blocks come from the system by themselves, the MiB that the heap has when they are freed,
and by how many bytes it grows when they are asked for again."""


def run(program: str, environment: Mapping[str, str], choice: str = "bound_heaps") -> str:
    """What ``program`` prints where nothing but ``environment`` and ``choice`` chooses for glibc."""
    inherited = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.replace("CHOICE", choice) + program],
        capture_output=True,
        text=True,
        env=inherited | dict(environment),
        check=False,
    )
    if "mallinfo2" in done.stderr:
        pytest.skip("this C library is not a glibc of 2.33 or later")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("environment", "blocks"),
    [
        ({}, 1),
        ({"MALLOC_MMAP_THRESHOLD_": str(8 << 20)}, 0),
        ({"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={8 << 20}"}, 0),
    ],
)
def test_a_large_block_is_returned_also_after_a_larger_one(environment: dict[str, str], blocks: int) -> None:
    """Unless the operator chose otherwise."""
    assert int(run(LARGE, environment)) == blocks


@pytest.mark.parametrize(
    ("environment", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": str(1 << 20)}, False)]
)
def test_what_a_request_frees_stays_for_the_next(environment: dict[str, str], kept: bool) -> None:
    """A page that is returned costs the next request the time to clear another."""
    assert (int(run(TOP, environment)) >= 16) == kept


@pytest.mark.parametrize(("environment", "heaps"), [({}, 1), ({"MALLOC_ARENA_MAX": "4"}, 4)])
def test_threads_share_one_heap(environment: dict[str, str], heaps: int) -> None:
    assert run(HEAPS, environment).count("<heap nr=") == heaps


@pytest.mark.parametrize(
    ("environment", "mapped", "kept"),
    [({}, 0, True), ({"MALLOC_MMAP_MAX_": "65536", "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}, 3, False)],
)
def test_large_blocks_stay_for_the_next_round(environment: dict[str, str], mapped: int, kept: bool) -> None:
    """Unless the operator chose otherwise."""
    apart, heap, grown = map(int, run(ROUNDS, environment, "keep_freed").split())
    assert apart == mapped
    assert (heap >= 152) == kept
    assert grown == 0
