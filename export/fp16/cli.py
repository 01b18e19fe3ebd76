"""``python -m export.precision BUNDLE``: add a mixed-precision graph, ``model_fp16.onnx``, to a bundle."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime as ort
import typer
from onnx import TensorProto
from rich.console import Console
from rich.table import Table

from export.errors import told
from export.fp16.emulate import emulate_fp16
from export.fp16.mixed import Mixed, to_mixed_precision
from export.fp16.ranges import measure_ranges, open_session
from export.interrupts import check_interrupted
from export.onnx.convert import OPSET
from export.onnx.fp16_weights import load_fp16_weights
from export.onnx.nodes import read_model, typed_tensors
from export.parity import FP16, Result, evaluate, raise_faults, run_onnx
from export.renamed_flags import RenamedFlags
from export.validation_images import IdsOption, ImagesOption, RgbImage, load_images
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, Manifest
from mtcp_serve.engines.onnxruntime import tensors

FP16_FILE = "model_fp16.onnx"
PARITY_COLUMN = "fp16"
"""Where ``parity.json`` keeps the comparison of the FP16 graph with the float32 one."""

app = typer.Typer(add_completion=False)


def add_fp16(bundle: Bundle, images: Mapping[str, RgbImage]) -> tuple[Mixed, dict[str, Result]]:
    """Write `FP16_FILE` into a bundle, with its hash in the manifest and its parity in ``parity.json``.

    What is kept in FP32, and parity, follow from ``images`` (RGB uint8 [H,W,3] of the bundle's size, by
    name), with FP16 emulated (`export.fp16.emulate`).

    Returns:
        What was converted, and the result on each task.

    Raises:
        BundleError: its files are not those of its manifest, or cannot be written.
        ExportError: the graph cannot be converted.
        ParityError: a task's maps are beyond `export.parity.FP16`. In every case the bundle is as it was.
    """
    manifest = bundle.verify().manifest
    bundle.check_editable()
    model = read_model(bundle.graph())
    whole = load_fp16_weights(model)
    mixed = to_mixed_precision(
        model, measure_ranges(whole, typed_tensors(whole, TensorProto.FLOAT), images.values())
    )
    results = evaluate_fp16(manifest, whole, mixed.model, images)
    raise_faults({"FP16": results}, f"{FP16_FILE} does not reproduce {MODEL_FILE}")
    with bundle.edit() as draft:
        path = draft.add(FP16_FILE, OPSET)
        onnx.save_model(mixed.model, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        manifest.check_graph(*tensors(session))
        report = {
            "onnxruntime": ort.__version__,
            "against": MODEL_FILE,
            "images": list(images),
            "limits": asdict(FP16),
            "fp16_nodes": mixed.fp16.total(),
            "nodes": mixed.total.total(),
            "kept_in_fp32": mixed.kept,
            "tasks": {task: result.metrics for task, result in results.items()},
        }
        draft.record_parity(PARITY_COLUMN, report)
        check_interrupted()
    return mixed, results


def evaluate_fp16(
    manifest: Manifest, whole: onnx.ModelProto, mixed: onnx.ModelProto, images: Mapping[str, RgbImage]
) -> dict[str, Result]:
    """The result on each task of an FP16 graph, emulated, against the float32 graph ``whole``."""
    stack = np.stack(list(images.values()))
    found, expected = (run_onnx(open_session(model), stack, 1) for model in (emulate_fp16(mixed), whole))
    return evaluate(
        {task.name: found[task.output] for task in manifest.outputs},
        {task.name: expected[task.output] for task in manifest.outputs},
        {task.name: task.kind for task in manifest.outputs},
        FP16,
    )


@app.command(cls=RenamedFlags)
def main(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", help="Folder of the bundle.", exists=True, file_okay=False, resolve_path=True
        ),
    ],
    images: ImagesOption = None,
    ids: IdsOption = None,
) -> None:
    """Add model_fp16.onnx to a bundle: FP16 but for what needs FP32, compared with float32 on images.

    Exit status 1: a task's maps differ too much; 2: something given cannot be used. The bundle is as it was.
    """
    with told():
        bundle = Bundle.open(folder)
        size = bundle.manifest.input
        loaded = load_images(images, size.height, size.width, ids)
        console = Console(stderr=True)
        with console.status(f"converting, then comparing {len(loaded)} images; some minutes"):
            mixed, results = add_fp16(bundle, loaded)
    Console().print(describe_nodes(mixed), describe_results(results))
    typer.echo(
        f"{bundle.graph(FP16_FILE)}: {mixed.share:.0%} of {mixed.total.total()} nodes in FP16, "
        f"{bundle.graph(FP16_FILE).stat().st_size / 1e6:.1f} MB"
    )


def describe_nodes(mixed: Mixed) -> Table:
    """The share of FP16 nodes by operator."""
    table = Table("operator", "FP16", "all", box=None)
    for operator, count in mixed.total.most_common():
        table.add_row(operator, str(mixed.fp16[operator]), str(count))
    for reason, count in mixed.kept.items():
        table.add_row(f"kept in FP32: {reason}", "", str(count))
    return table


def describe_results(results: Mapping[str, Result]) -> Table:
    """Each task's metrics."""
    table = Table("task", "metric", "value", box=None)
    for task, result in results.items():
        for name, value in result.metrics.items():
            table.add_row(task, name, f"{value:.4g}")
    return table
