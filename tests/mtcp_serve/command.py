"""``mtcp-serve predict`` as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def start(*arguments: object, wrapper: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start it, after the words of ``wrapper``."""
    command = [
        *wrapper,
        sys.executable,
        "-m",
        "mtcp_serve",
        "predict",
        *map(str, arguments),
        "--threads",
        "1",
    ]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status and what it printed."""
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
