"""The gateway against the engine inside it, in one run: ``python -m benchmarks.serving IMAGE``.

The layers are the engine alone on an image at model size (ONNX Runtime in this process, in as many threads
as there are clients, four at most), ``POST /predict`` answering arrays (npz) at model size, and answering
JSON with PNGs at the image's size. They take turns, so that a change of the machine's load meets them
alike, and the ratios are of one run. The clients work on the same cores as the server. Nothing else should
run beside it: the system shares its cores by threads, and the engine has more of them.

Prints tables; ``--json FILE`` writes the same figures for machines:

- ``one_at_a_time``: a single client; milliseconds (median to 99th percentile) by layer.
- ``closed_loop``: clients that send the next image when they have their answer, by layer and their number.
- ``open_loop``: images for the last layer that arrive at random (Poisson) at shares of its capacity, whether
  or not the earlier ones are answered. Milliseconds count from when one was due; above capacity they grow
  with ``--open-seconds`` until the queue is full.
- ``headline``: most responses per second of each layer over the engine's, and the median and 99th percentile
  that it adds.
- ``bytes`` by size and format, ``encode_ms`` by size, task and form, ``start_to_ready_s``, ``resident_mb``.
"""

import asyncio
import json
import statistics
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine, resident_megabytes
from benchmarks.serving.encoding import answer_bytes, encode_milliseconds
from benchmarks.serving.gateway import Gateway, gateway
from benchmarks.serving.layers import (
    ENGINE,
    PICTURES,
    QUERIES,
    capacity,
    layers,
    one_at_a_time,
    sweep,
)
from benchmarks.serving.loops import Outcome, open_loop
from benchmarks.serving.tables import print_report
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import MODEL_FILE, Manifest

_SHARES = (0.5, 0.8, 1.2)


@dataclass(frozen=True)
class Plan:
    """How much of each loop is run; see the options of the command."""

    runs: int
    clients: list[int]
    seconds: float
    rounds: int
    open_s: float


def main(
    path: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="The image to send.", exists=True, dir_okay=False)
    ],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads per inference.")] = 2,
    runs: Annotated[int, typer.Option(help="Calls of each layer, one at a time.")] = 100,
    clients: Annotated[str, typer.Option(help="Numbers of clients of the closed loop.")] = "1,2,4,8,16,32",
    seconds: Annotated[float, typer.Option(help="Seconds of each closed loop.")] = 2.0,
    open_seconds: Annotated[float, typer.Option(help="Seconds of each open loop.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Turns of each closed loop.")] = 2,
    starts: Annotated[int, typer.Option(help="Starts of the gateway, whose median counts.")] = 5,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the report here as JSON.")] = None,
) -> None:
    """Compare the gateway with the engine inside it."""
    manifest = Manifest.load(bundle)
    data = path.read_bytes()
    with Image.open(BytesIO(data)) as image:
        size = image.size
        resized = image.convert("RGB").resize((manifest.input.width, manifest.input.height))
    report: dict[str, Any] = {
        "machine": machine(threads),
        "model": f"{manifest.name} {manifest.version}, {manifest.input.height}x{manifest.input.width}",
        "image": f"{size[0]}x{size[1]}",
    }
    started = start_seconds(bundle, threads, starts - 1)
    with gateway(bundle, threads) as server:
        started.append(server.start_s)
        report["start_to_ready_s"] = {
            "median": round(statistics.median(started), 2),
            "each": [round(value, 2) for value in started],
        }
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(bundle / MODEL_FILE, options, providers=["CPUExecutionProvider"])
        plan = Plan(runs, [int(count) for count in clients.split(",")], seconds, rounds, open_seconds)
        report |= asyncio.run(drive(session, np.asarray(resized)[None], server, data, plan))
        report["bytes"] = answer_bytes(server.url, manifest, data)
        report["resident_mb"] |= {
            "after the run": resident_megabytes(server.pid),
            "peak": resident_megabytes(server.pid, peak=True),
        }
    report["encode_ms"] = encode_milliseconds(bundle, data, threads, max(3, runs // 5))
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report)


def start_seconds(bundle: Path, threads: int, starts: int) -> list[float]:
    """From the start of a process to ready."""
    found = []
    for _ in range(starts):
        with gateway(bundle, threads) as server:
            found.append(server.start_s)
    return found


async def drive(
    session: ort.InferenceSession, image: NDArray[np.uint8], server: Gateway, data: bytes, plan: Plan
) -> dict[str, Any]:
    """Everything that sends images in loops."""
    memory = {"ready": resident_megabytes(server.pid)}
    async with layers(session, image, server.url, data) as found:
        alone = await one_at_a_time(found, plan.runs)
        memory["after one client"] = resident_megabytes(server.pid)
        swept = await sweep(found, plan.clients, plan.seconds, plan.rounds)
        most = capacity(swept[PICTURES])
        arriving = {share: await open_loop(found[PICTURES], share * most, plan.open_s) for share in _SHARES}
    return {
        "one_at_a_time": {name: outcome.summary() for name, outcome in alone.items()},
        "closed_loop": {
            name: {count: outcome.summary() for count, outcome in outcomes.items()}
            for name, outcomes in swept.items()
        },
        "open_loop": {
            share: {"sent_per_s": round(share * most, 2)} | outcome.summary()
            for share, outcome in arriving.items()
        },
        "headline": headline(alone, swept),
        "resident_mb": memory,
    }


def headline(alone: dict[str, Outcome], swept: dict[str, dict[int, Outcome]]) -> dict[str, dict[str, float]]:
    """Of each layer but the engine: throughput over the engine's, each at its best, and the time it adds."""

    def added(name: str, share: int) -> float:
        mine, engine = (float(np.percentile(alone[each].ms, share)) for each in (name, ENGINE))
        return round(mine - engine, 1)

    return {
        name: {
            "throughput_over_engine": round(capacity(swept[name]) / capacity(swept[ENGINE]), 3),
            "added_p50_ms": added(name, 50),
            "added_p99_ms": added(name, 99),
        }
        for name in QUERIES
    }


if __name__ == "__main__":
    typer.run(main)
