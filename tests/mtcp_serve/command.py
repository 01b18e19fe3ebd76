"""``mtcp-serve predict`` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


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
    """What every file below ``folder`` holds, by its path in it.

    Of a PNG these are its pixels and texts: ISA-L may compress the same ones to other bytes.
    """
    return {
        str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _content(path: Path) -> bytes:
    if path.suffix != ".png":
        return path.read_bytes()
    with Image.open(path) as image:
        pixels = image.tobytes()
        return repr((image.mode, image.size, image.getpalette(), image.info)).encode() + pixels
