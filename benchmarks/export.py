"""How long an export takes and how large its files are: ``python -m benchmarks.export CONFIG``.

Random weights, the config's own size and tasks. Prints JSON.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
import torch
import typer
from onnx import TensorProto

from export.deployment_module import DeploymentGraph
from export.errors import told
from export.fp16.mixed import to_mixed_precision
from export.fp16.ranges import measure_ranges
from export.onnx.convert import OPSET, convert
from export.onnx.nodes import typed_tensors
from export.trt.graph import for_tensorrt
from mtcp_serve.bundle.manifest import IMAGE_TENSOR
from training.config import ConfigError, load_config
from training.model import build_network


def main(
    config: Annotated[str, typer.Argument(help="Name of a config, e.g. nyud_swin_small.")],
    fp16: Annotated[bool, typer.Option("--fp16", help="Make the FP16 graph and TensorRT's too.")] = False,
    batch: Annotated[int, typer.Option(help="Images to run together after one alone; 0 runs none.")] = 2,
) -> None:
    """Time an export of a network with random weights, and run its graph."""
    torch.manual_seed(0)
    with told(ConfigError):
        settings = load_config(config, ["root=unused"])
    height, width = settings.data.height, settings.data.width
    graph = DeploymentGraph(build_network(settings.model), settings.tasks, height, width)
    start = time.perf_counter()
    model = convert(graph).model
    report: dict[str, object] = {
        "config": config,
        "input": [height, width],
        "tasks": [task.name for task in settings.tasks],
        "parameters_m": round(sum(p.numel() for p in graph.parameters()) / 1e6, 2),
        "opset": OPSET,
        "threads": torch.get_num_threads(),
        "export_s": round(time.perf_counter() - start, 1),
        "nodes": len(model.graph.node),
    }
    del graph
    with tempfile.TemporaryDirectory() as folder:
        report |= {"model_mb": _megabytes(model, Path(folder))}
        for count in (1, batch) if batch else ():
            report |= _run(Path(folder) / "model.onnx", np.zeros((count, height, width, 3), np.uint8))
        if fp16:
            start = time.perf_counter()
            image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
            ranges = measure_ranges(model, typed_tensors(model, TensorProto.FLOAT), [image])
            mixed = to_mixed_precision(model, ranges)
            report |= {
                "fp16_s": round(time.perf_counter() - start, 1),
                "fp16_mb": _megabytes(mixed.model, Path(folder)),
                "fp16_share_of_nodes": round(mixed.share, 3),
                "kept_in_fp32": mixed.kept,
                "tensorrt_nodes": len(for_tensorrt(mixed.model, "gather").graph.node),
            }
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**report, "peak_resident_gib": round(largest, 2)}, indent=1))


def _megabytes(model: onnx.ModelProto, folder: Path) -> float:
    path = folder / "model.onnx"
    onnx.save_model(model, path)
    return round(path.stat().st_size / 1e6, 1)


def _run(path: Path, images: np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]) -> dict[str, object]:
    """Seconds that ONNX Runtime takes for a batch, after checking the shapes of the maps."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    start = time.perf_counter()
    maps = session.run(None, {IMAGE_TENSOR: images})
    assert all(values.shape[:3] == images.shape[:3] for values in maps)
    return {f"batch_{len(images)}_s": round(time.perf_counter() - start, 2)}


if __name__ == "__main__":
    typer.run(main)
