"""What an answer weighs in each format, and how long its maps take to encode."""

import asyncio
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import get_args

import httpx
import numpy as np

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps, Size, predict
from mtcp_serve.inference.registry import Models
from mtcp_serve.inference.timings import Timings
from mtcp_serve.outputs.formats import FORMATS
from mtcp_serve.outputs.metadata import describe, describe_map
from mtcp_serve.outputs.png import to_png
from mtcp_serve.server.settings import Settings

SIZES: tuple[Size, ...] = get_args(Size)


def answer_bytes(url: str, manifest: Manifest, image: bytes) -> dict[str, dict[str, int]]:
    """Bytes of the answer by size and format; ``png`` holds one map, so there is one for each task."""
    queries = {name: f"format={name}" for name, form in FORMATS.items() if not form.single} | {
        f"png {task.name}": f"format=png&tasks={task.name}" for task in manifest.tasks
    }
    headers = {"Content-Type": "application/octet-stream"}
    with httpx.Client(base_url=url, timeout=120) as http:

        def size_of(query: str) -> int:
            response = http.post(f"/predict?{query}", content=image, headers=headers)
            return len(response.raise_for_status().content)

        return {
            size: {name: size_of(f"{query}&size={size}") for name, query in queries.items()} for size in SIZES
        }


def encode_milliseconds(
    bundle: Path, image: bytes, threads: int, runs: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds (medians of ``runs``) by size and task.

    They are to ``resize`` a map, and then to write it as a ``png`` file or an npy ``array``.
    """
    predictions = {size: asyncio.run(_predict(bundle, image, threads, size)) for size in SIZES}
    return {
        size: {dense.task.name: _encode(prediction, dense, runs) for dense in prediction.maps}
        for size, prediction in predictions.items()
    }


async def _predict(bundle: Path, image: bytes, threads: int, size: Size) -> DenseMaps:
    models = Models([Batcher(OnnxEngine.load(Bundle.open(bundle), EngineOptions("cpu", threads)))])
    return await predict(image, models.select(None), size, Settings().image_limits, Timings())


def _encode(prediction: DenseMaps, dense: DenseMap, runs: int) -> dict[str, float]:
    values = dense.values()
    version = prediction.models[0].version
    image = describe(prediction, {}).image
    return {
        "resize": _median(dense.values, runs),
        "png": _median(lambda: to_png(dense.task, values, describe_map(dense, values), version, image), runs),
        "array": _median(lambda: np.save(BytesIO(), values), runs),
    }


def _median(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)
