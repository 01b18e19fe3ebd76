"""Formats, streams and smoothing of one bundle, in one run: ``python -m benchmarks.outputs IMAGE``.

- ``formats``: for each size and format the bytes of the answer, and the milliseconds that it takes beyond
  queueing, decoding and inference (encoding, sending), as the least of ``--rounds`` rounds in turn; ``share``
  is that over the least inference of the run. ``--large`` adds an image of 30 megapixels, as cameras take
  them, in one round (half a minute or more).
- ``stream``: a frame over ``WS /stream`` and a ``POST /predict``, in turn; the ratio of their least and of
  their median times, frames a second, and how many of a burst of frames were answered.
- ``smooth``: what ``--smooth 0.8`` leaves of the flicker of a still scene with noise of 4 grey levels, and
  the error on a pan, beside that of a mean that knows no motion.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console

from benchmarks.machine import machine
from benchmarks.outputs.formats import measure_formats
from benchmarks.outputs.smooth import measure_smoothing
from benchmarks.outputs.stream import measure_stream
from benchmarks.serving.gateway import gateway
from benchmarks.serving.tables import grid
from mtcp_serve.bundle import DEFAULT_BUNDLE

SIZES = ((512, 512), (1920, 1080))
LARGE = (6720, 4480)


def main(
    path: Annotated[Path, typer.Argument(metavar="IMAGE", exists=True, dir_okay=False)],
    bundle: Path = DEFAULT_BUNDLE,
    threads: int = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Of formats, and of stream and request.")] = 5,
    large: Annotated[bool, typer.Option("--large", help="Formats of 30 megapixels too, one round.")] = False,
    frames: Annotated[int, typer.Option(min=4, help="Of the still scene and of the pan.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report here.")] = None,
) -> None:
    """Measure formats, streams and smoothing."""
    image = Image.open(path).convert("RGB")
    report: dict[str, Any] = {"machine": machine(threads)}
    with gateway(bundle, threads) as server:
        report["formats"] = {
            f"{width} x {height}": measure_formats(server.url, image.resize((width, height)), rounds)
            for width, height in SIZES
        }
        if large:
            name = "{} x {}".format(*LARGE)
            report["formats"][name] = measure_formats(server.url, image.resize(LARGE), 1)
        report["stream"] = measure_stream(server.url, image.resize(SIZES[0]), rounds)
    report["smooth"] = measure_smoothing(bundle, threads, image, frames)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    console = Console(highlight=False, width=120)
    for size, rows in report["formats"].items():
        console.print(grid(f"Formats, {size}", rows))
    console.print(grid("Streams", {"": report["stream"]}))
    console.print(grid("Smoothing", report["smooth"]))
    console.print("machine:", ", ".join(f"{key} {value}" for key, value in report["machine"].items()))


if __name__ == "__main__":
    typer.run(main)
