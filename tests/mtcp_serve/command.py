"""``mtcp-serve predict`` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def start(
    *arguments: object,
    wrapper: tuple[str, ...] = (),
    module: str = "mtcp_serve",
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[str]":
    """Start it, after the words of ``wrapper``, or a ``module`` that does the same."""
    command = [
        *wrapper,
        sys.executable,
        "-m",
        module,
        "predict",
        *map(str, arguments),
        "--intra-op-threads",
        "1",
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status and what it printed; one that does not end is killed."""
    try:
        said, _ = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"it did not end; it said: {said}") from None
    return process.returncode, said


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
