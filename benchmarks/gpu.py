"""Latency of a bundle and of a network on a GPU: ``python -m benchmarks.gpu BUNDLE CONFIG``.

ONNX Runtime runs each graph of the bundle, with the images and maps on the host or left on the device.
PyTorch runs the network of the config (random weights) under autocast, as it is and as a CUDA graph. Prints
JSON; a case that fails is an ``error`` in it. ``--device cpu`` runs the same cases without a GPU.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.machine import machine
from export.deployment_module import DeploymentGraph
from export.errors import told
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, MODEL_FILE
from training.config import ConfigError, load_config
from training.model import build_network

Device = Literal["cuda", "cpu"]
GRAPHS = (MODEL_FILE, "model_fp16.onnx")
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
WARM_UP = 3
"""Calls before the first that counts; a CUDA graph needs them too."""


def main(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", exists=True, file_okay=False)],
    config: Annotated[str, typer.Argument(help="Name of a config, e.g. nyud_swin_small.")],
    device: Annotated[Device, typer.Option(help="Where to run.")] = "cuda",
    batches: Annotated[str, typer.Option(help="Batch sizes, with commas between.")] = "1,8",
    iterations: Annotated[int, typer.Option(min=1, help="Calls that count, for each case.")] = 30,
    only: Annotated[
        Literal["both", "onnxruntime", "torch"], typer.Option(help="Which of the two to run.")
    ] = "both",
    precisions: Annotated[str, typer.Option(help="Of PyTorch, with commas between.")] = "fp32,fp16,bf16",
    out: Annotated[Path | None, typer.Option("--json", help="File to write the report to as well.")] = None,
) -> None:
    """Measure a bundle with ONNX Runtime and a network with PyTorch."""
    sizes = [int(text) for text in batches.split(",")]
    report: dict[str, Any] = {"machine": _machine(device), "iterations": iterations}
    if only != "torch":
        report["onnxruntime"] = _onnxruntime(Bundle.open(bundle), device, sizes, iterations)
    if only != "onnxruntime":
        report["torch"] = _torch(config, device, sizes, iterations, precisions.split(","))
    text = json.dumps(report, indent=1)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _machine(device: Device) -> dict[str, object]:
    found = {
        **machine(torch.get_num_threads()),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": gpu.name,
            "gpu_gib": round(gpu.total_memory / 2**30, 1),
            "compute_capability": f"{gpu.major}.{gpu.minor}",
            "cuda": torch.version.cuda,
        }
    return found


def _onnxruntime(bundle: Bundle, device: Device, sizes: list[int], iterations: int) -> dict[str, object]:
    """Each graph that the bundle has, at each batch size."""
    try:
        ort = import_module("onnxruntime")
    except ImportError as error:
        return {"error": str(error)}
    report: dict[str, Any] = {
        "version": ort.__version__,
        "bundle": bundle.manifest.name,
        "input": [bundle.manifest.input.height, bundle.manifest.input.width],
    }
    for name in GRAPHS:
        if name in bundle.manifest.files:
            report[name] = _attempt(_graph, ort, bundle, name, device, sizes, iterations)
    return report


def _graph(
    ort: Any, bundle: Bundle, name: str, device: Device, sizes: list[int], iterations: int
) -> dict[str, object]:
    from mtcp_serve.engines.onnxruntime import nodes_by_provider

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}, only {ort.get_available_providers()}")
    start = time.perf_counter()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(bundle.graph(name), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} could not be started")
    report: dict[str, object] = {
        "open_s": round(time.perf_counter() - start, 2),
        "nodes": {name: dict(found.most_common()) for name, found in nodes_by_provider(session).items()},
    }
    size = bundle.manifest.input
    for batch in sizes:
        images = _images(batch, size.height, size.width)
        report[f"batch_{batch}"] = {
            "host": _attempt(_times, partial(session.run, None, {IMAGE_TENSOR: images}), iterations),
            "device": _attempt(_on_device, ort, session, images, device, iterations),
        }
    return report


def _on_device(
    ort: Any, session: Any, images: NDArray[np.uint8], device: Device, iterations: int
) -> dict[str, object]:
    return _times(_bound(ort, session, images, device), iterations)


def _bound(ort: Any, session: Any, images: NDArray[np.uint8], device: Device) -> Callable[[], object]:
    """A run whose images are on the device already, and whose maps stay there."""
    binding = session.io_binding()
    binding.bind_ortvalue_input(IMAGE_TENSOR, ort.OrtValue.ortvalue_from_numpy(images, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _torch(
    config: str, device: Device, sizes: list[int], iterations: int, precisions: list[str]
) -> dict[str, object]:
    """Inference of the config's network, from uint8 images to typed maps, in every precision and batch."""
    if device == "cuda" and not torch.cuda.is_available():
        return {"error": "PyTorch sees no GPU"}
    torch.manual_seed(0)
    with told(ConfigError):
        settings = load_config(config, ["root=unused"])
    height, width = settings.data.height, settings.data.width
    graph = DeploymentGraph(build_network(settings.model), settings.tasks, height, width).to(device)
    report: dict[str, Any] = {
        "config": config,
        "input": [height, width],
        "tasks": [task.name for task in settings.tasks],
        "parameters_m": round(sum(p.numel() for p in graph.parameters()) / 1e6, 2),
    }
    for precision in precisions:
        report[precision] = {
            f"batch_{batch}": dict(
                _network(graph, _images(batch, height, width), device, iterations, PRECISIONS[precision])
            )
            for batch in sizes
        }
    return report


def _network(
    graph: DeploymentGraph,
    images: NDArray[np.uint8],
    device: Device,
    iterations: int,
    precision: torch.dtype | None,
) -> Iterator[tuple[str, dict[str, object]]]:
    """``eager``, ``cuda_graph`` and the memory that they took."""
    batch = torch.from_numpy(images).to(device)

    def run() -> object:
        # without the cache of casts, which a captured graph must not share with eager calls
        with torch.autocast(device, dtype=precision, enabled=precision is not None, cache_enabled=False):
            return graph(batch)

    with torch.inference_mode():
        yield "eager", _attempt(_times, _synchronous(run, device), iterations)
        if device == "cuda":
            yield "cuda_graph", _attempt(_captured_times, run, iterations)
            yield "memory", {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)}
            torch.cuda.reset_peak_memory_stats()
        else:
            yield "cuda_graph", {"error": "only a GPU has CUDA graphs"}


def _captured_times(run: Callable[[], object], iterations: int) -> dict[str, object]:
    return _times(_captured(run), iterations)


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    """The run as one CUDA graph.

    Raises:
        RuntimeError: something in it cannot be captured, such as a copy from the host.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        run()
    return _synchronous(captured.replay, "cuda")


def _synchronous(run: Callable[[], object], device: Device) -> Callable[[], object]:
    """The run, and the wait for the device to be done with it."""

    def wait() -> object:
        result = run()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return wait


def _times(run: Callable[[], object], iterations: int) -> dict[str, object]:
    """Milliseconds of a call: the median, and the 90th percentile."""
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": round(statistics.median(times), 2),
        "p90_ms": round(float(np.quantile(times, 0.9)), 2),
    }


def _attempt(measure: Callable[..., dict[str, object]], *arguments: object) -> dict[str, object]:
    """What was measured, or the error: a case that fails must not cost the others."""
    try:
        return measure(*arguments)
    except Exception as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"}


def _images(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


if __name__ == "__main__":
    typer.run(main)
