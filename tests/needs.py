"""What tests need beyond the environment of ``make test``: they are skipped, and say how to get it."""

import os
import shutil
import sys

import pytest

from export.triton.local import missing


def needs_command(name: str, how: str) -> pytest.MarkDecorator:
    """Skip where there is no command ``name``."""
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"no {name} on the PATH ({how})")


needs_triton = pytest.mark.skipif(missing() is not None, reason=f"no Triton can run here: {missing()}")
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="/proc, /dev/shm, tgkill and mallinfo2 are Linux's"
)
needs_posix = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no fork, and ends processes and connections otherwise"
)
needs_curl = needs_command("curl", "apt install curl")
