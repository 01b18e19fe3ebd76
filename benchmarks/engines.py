"""The engines that run on this machine's CPU, in one run: ``python -m benchmarks.engines IMAGE``.

ONNX Runtime, and OpenVINO in float32 and (where the processor has it) bfloat16, take turns, some inferences
of each in every round. For each are stated, as the best of the rounds, since other work only adds time:

- ``alone_ms``: an inference that is alone, with all threads;
- ``one_stream_ms``: milliseconds per image where two wait for one stream (``--streams 1``);
- ``together_ms``: milliseconds per image with two at a time, each on its share of the threads, which is what
  the server does by default when requests meet;
- ``load_s``, and how much memory the process held more when the engine was loaded and had run two, MB;
- agreement with ONNX Runtime on the image: share of equal labels, and mean absolute difference of the others
  over the standard deviation of the map.

Prints a table; ``--json FILE`` writes the same for machines.
"""

import asyncio
import json
import os
import time
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine, resident_megabytes
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import Engine, EngineOptions, Precision
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.errors import BundleError
from mtcp_serve.kinds.base import Map

CANDIDATES: dict[str, tuple[str, Precision]] = {
    "onnxruntime": ("onnxruntime", "auto"),
    "openvino, float32": ("openvino", "fp32"),
    "openvino, bfloat16": ("openvino", "bf16"),
}
"""Name and precision of what is compared; the first is what the others have to agree with."""


def main(
    path: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="The image to infer.", exists=True, dir_okay=False)
    ],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads per inference.")] = 2,
    rounds: Annotated[int, typer.Option(help="Turns.")] = 10,
    calls: Annotated[int, typer.Option(help="Inferences in a turn, a caller.")] = 2,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the report here as JSON.")] = None,
) -> None:
    """Compare the engines of this machine's CPU."""
    opened = Bundle.open(bundle)
    height, width = opened.manifest.input.height, opened.manifest.input.width
    with Image.open(BytesIO(path.read_bytes())) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height)))[None].copy()
    report: dict[str, Any] = {"machine": machine(threads), "left_out": {}, "engines": {}}
    report |= asyncio.run(compare(opened, pixels, threads, rounds, calls))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


async def compare(
    bundle: Bundle, pixels: NDArray[np.uint8], threads: int, rounds: int, calls: int
) -> dict[str, Any]:
    """What the report says of each engine, and why some are left out."""
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    engines: dict[str, tuple[Engine, Engine]] = {}
    for name, (engine, precision) in CANDIDATES.items():
        before, start = _resident(), time.perf_counter()
        try:
            automatic = load_engine(bundle, engine, EngineOptions("cpu", threads, precision))
        except BundleError as error:
            left_out[name] = str(error)
            continue
        loaded = time.perf_counter() - start
        found[name] = {"load_s": round(loaded, 2), "mb_loaded": round(_resident() - before, 1)}
        for _ in range(2):  # the first opens what runs two together
            await turn(automatic, pixels, 2, 1)
        found[name]["mb_two"] = round(_resident() - before, 1)
        one = load_engine(bundle, engine, EngineOptions("cpu", threads, precision, 1))
        engines[name] = automatic, one
    best: dict[str, dict[str, float]] = {name: {} for name in engines}
    for _ in range(rounds):
        for name, (automatic, one) in engines.items():
            for figure, seconds in (
                ("alone_ms", await turn(automatic, pixels, 1, calls)),
                ("together_ms", await turn(automatic, pixels, 2, calls)),
                ("one_stream_ms", await turn(one, pixels, 1, calls)),
            ):
                best[name][figure] = min(best[name].get(figure, np.inf), 1000 * seconds)
    expected = await _maps(next(iter(engines.values()))[0], pixels)
    for name, pair in engines.items():
        found[name] |= {figure: round(value, 1) for figure, value in best[name].items()}
        found[name]["agreement"] = agreement(await _maps(pair[0], pixels), expected)
        for engine_ in pair:
            await engine_.close()
    return {"engines": found, "left_out": left_out}


async def turn(engine: Engine, pixels: NDArray[np.uint8], callers: int, calls: int) -> float:
    """Seconds an image, where each of ``callers`` infers ``calls`` times."""

    async def caller() -> None:
        for _ in range(calls):
            await engine.infer(pixels, engine.manifest.tasks)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - start) / (callers * calls)


def agreement(found: dict[str, Map], expected: dict[str, Map]) -> dict[str, float]:
    """By task, the share of equal labels, or the mean difference over the map's standard deviation."""
    return {
        name: round(float(np.mean(values == expected[name])), 4)
        if values.dtype == np.uint8
        else round(float(np.abs(values - expected[name]).mean() / expected[name].std()), 5)
        for name, values in found.items()
    }


async def _maps(engine: Engine, pixels: NDArray[np.uint8]) -> dict[str, Map]:
    tasks = engine.manifest.tasks
    maps = await engine.infer(pixels, tasks)
    return {task.name: values for task, values in zip(tasks, maps, strict=True)}


def _resident() -> float:
    return resident_megabytes(os.getpid()) or 0.0


def show(report: dict[str, Any]) -> None:
    """The report for people."""
    console = Console(highlight=False, width=120)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    for name, problem in report["left_out"].items():
        console.print(f"left out: {name}: {problem}", markup=False)
    table = Table("")
    rows = report["engines"]
    for name in rows:
        table.add_column(name, justify="right")
    for figure in next(iter(rows.values())):
        if figure != "agreement":
            table.add_row(figure, *(str(row[figure]) for row in rows.values()))
    for task in next(iter(rows.values()))["agreement"]:
        table.add_row(f"agreement: {task}", *(str(row["agreement"][task]) for row in rows.values()))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
