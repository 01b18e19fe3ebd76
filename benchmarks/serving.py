"""Engine alone against the gateway around it, in one run: ``python -m benchmarks.serving PHOTO``.

Prints JSON: milliseconds (median and 90th percentile) of the engine on an image at model size, of ``POST
/predict`` answering npz at model size and JSON at the photo's size, and their ratios to the engine.
"""

import json
import platform
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import onnxruntime as ort
import typer
from PIL import Image

from mtcp_serve.manifest import IMAGE_TENSOR, MODEL_FILE, Manifest
from mtcp_serve.settings import DEFAULT_BUNDLE


def milliseconds(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Median and 90th percentile of ``runs`` calls after three that do not count."""
    for _ in range(3):
        call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return {"p50": round(float(np.median(times)), 1), "p90": round(float(np.percentile(times, 90)), 1)}


@contextmanager
def server(bundle: Path, threads: int) -> Iterator[tuple[httpx.Client, subprocess.Popen[str], float]]:
    """A gateway process on a free loopback port; also the seconds from its start to being ready."""
    command = [
        sys.executable,
        "-m",
        "mtcp_serve",
        "serve",
        "--bundle",
        str(bundle),
        "--port",
        "0",
        "--threads",
        str(threads),
    ]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)))
        drain = threading.Thread(target=deque, args=(process.stderr, 0))  # a full pipe would stop the server
        drain.start()
        with httpx.Client(base_url=found[0], timeout=60) as client:
            client.get("/health/ready").raise_for_status()
            yield client, process, time.perf_counter() - start
        process.terminate()
        drain.join()


def post(client: httpx.Client, query: str, data: bytes) -> None:
    """One request with the photo as raw body."""
    headers = {"Content-Type": "application/octet-stream"}
    client.post(f"/predict?{query}", content=data, headers=headers).raise_for_status()


def resident_megabytes(pid: int) -> float | None:
    """Resident memory of a process; None where ``/proc`` does not exist."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) / 1024, 1) if found else None


def main(
    photo: Annotated[Path, typer.Argument(help="The photo to send.", exists=True)],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads an inference.")] = 2,
    runs: Annotated[int, typer.Option(help="Timed calls of each kind.")] = 30,
) -> None:
    """Measure and print."""
    manifest = Manifest.load(bundle)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(bundle / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    data = photo.read_bytes()
    with Image.open(BytesIO(data)) as image:
        size = image.size
        resized = image.convert("RGB").resize((manifest.input.width, manifest.input.height))
    batch = np.asarray(resized)[None]
    report: dict[str, object] = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": threads},
        "model": f"{manifest.name} {manifest.version}, {manifest.input.height}x{manifest.input.width}",
        "photo": f"{size[0]}x{size[1]}",
    }
    engine = milliseconds(lambda: session.run(None, {IMAGE_TENSOR: batch}), runs)
    calls = {"npz, model size": "format=npz&size=model", "json, photo size": "format=json&size=input"}
    with server(bundle, threads) as (client, process, seconds):
        gateway = {
            name: milliseconds(
                partial(post, client, query, data),
                runs,
            )
            for name, query in calls.items()
        }
        report |= {
            "start_to_ready_s": round(seconds, 2),
            "resident_mb": resident_megabytes(process.pid),
        }
    report |= {
        "engine_ms": engine,
        "gateway_ms": gateway,
        "gateway_over_engine": {k: round(v["p50"] / engine["p50"], 2) for k, v in gateway.items()},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
