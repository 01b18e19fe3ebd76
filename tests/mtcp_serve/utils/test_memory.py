"""Memory that glibc is to return."""

import os
import subprocess
import sys

import pytest

_PROBE = """
import ctypes
from mtcp_serve.utils.memory import return_large_blocks

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
return_large_blocks()
libc.free(libc.malloc(16 << 20))  # by default glibc learns from it to keep what is smaller
before = libc.mallinfo2().hblks
block = libc.malloc(4 << 20)
print(libc.mallinfo2().hblks - before)
"""


def blocks_of_the_system(**environment: str) -> int:
    """How many blocks of their own a process has for 4 MiB, after it has freed 16."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    if "mallinfo2" in done.stderr:
        pytest.skip("this C library is not a glibc of 2.33 or later")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_large_block_is_returned_also_after_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert blocks_of_the_system() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_MMAP_THRESHOLD_": str(8 << 20)},
        {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={8 << 20}"},
    ],
)
def test_the_choice_of_an_operator_stays(environment: dict[str, str]) -> None:
    assert blocks_of_the_system(**environment) == 0
