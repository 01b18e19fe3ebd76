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

from export.errors import ExportError
from export.fp16.emulate import emulate_half
from export.fp16.mixed import Mixed, to_mixed_precision
from export.fp16.ranges import measure_peaks, open_session
from export.onnx.convert import OPSET
from export.onnx.half_weights import load_halves
from export.onnx.nodes import typed_tensors
from export.parity import HALF, Verdict, judge, refuse, run_onnx
from export.validation_images import IdsOption, Photo, PhotosOption, load_photos
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, Manifest
from mtcp_serve.engines.onnxruntime import tensors
from mtcp_serve.errors import BundleError

HALF_FILE = "model_fp16.onnx"
PARITY_COLUMN = "fp16"
"""Where ``parity.json`` keeps the comparison of the half graph with the float32 one."""

app = typer.Typer(add_completion=False)


def add_half(bundle: Bundle, photos: Mapping[str, Photo]) -> tuple[Mixed, dict[str, Verdict]]:
    """Write `HALF_FILE` into a bundle, with its hash in the manifest and its parity in ``parity.json``.

    Islands and parity are judged on ``photos`` (RGB uint8 [H,W,3] of the bundle's size, by name), with
    half precision emulated (`export.fp16.emulate`).

    Returns:
        What was converted, and the verdict on each task.

    Raises:
        BundleError: its files are not those of its manifest, or cannot be written.
        ExportError: the graph cannot be converted.
        ParityError: a task's maps are beyond `export.parity.HALF`. In every case the bundle is as it was.
    """
    manifest = bundle.verify().manifest
    model = onnx.load_model(bundle.graph())
    whole = load_halves(model)
    mixed = to_mixed_precision(
        model, measure_peaks(whole, typed_tensors(whole, TensorProto.FLOAT), photos.values())
    )
    verdicts = judge_half(manifest, whole, mixed.model, photos)
    refuse({"FP16": verdicts}, f"{HALF_FILE} does not reproduce {MODEL_FILE}")
    with bundle.edit() as draft:
        path = draft.add(HALF_FILE, OPSET)
        onnx.save_model(mixed.model, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        manifest.check_graph(*tensors(session))
        report = {
            "onnxruntime": ort.__version__,
            "against": MODEL_FILE,
            "photos": list(photos),
            "limits": asdict(HALF),
            "half_nodes": mixed.half.total(),
            "nodes": mixed.total.total(),
            "float32_islands": mixed.islands,
            "tasks": {task: verdict.figures for task, verdict in verdicts.items()},
        }
        draft.record_parity(PARITY_COLUMN, report)
    return mixed, verdicts


def judge_half(
    manifest: Manifest, whole: onnx.ModelProto, mixed: onnx.ModelProto, photos: Mapping[str, Photo]
) -> dict[str, Verdict]:
    """The verdict on each task of a half graph, emulated, against the float32 graph ``whole``."""
    images = np.stack(list(photos.values()))
    found, wanted = (run_onnx(open_session(model), images, 1) for model in (emulate_half(mixed), whole))
    return judge(
        {task.name: found[task.output] for task in manifest.tasks},
        {task.name: wanted[task.output] for task in manifest.tasks},
        {task.name: task.kind for task in manifest.tasks},
        HALF,
    )


@app.command()
def main(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", help="Folder of the bundle.", exists=True, file_okay=False, resolve_path=True
        ),
    ],
    photos: PhotosOption = None,
    ids: IdsOption = None,
) -> None:
    """Add model_fp16.onnx to a bundle: half precision but for islands, judged against float32 on photos.

    Exit status 1: the graph cannot be converted, or a task's maps differ too much; the bundle is as it was.
    """
    try:
        bundle = Bundle.open(folder)
        size = bundle.manifest.input
        judged_on = load_photos(photos, size.height, size.width, ids)
        console = Console(stderr=True)
        with console.status(f"converting, then comparing {len(judged_on)} photos; some minutes"):
            mixed, verdicts = add_half(bundle, judged_on)
    except (ExportError, BundleError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    Console().print(describe_nodes(mixed), describe_verdicts(verdicts))
    typer.echo(
        f"{bundle.graph(HALF_FILE)}: {mixed.share:.0%} of {mixed.total.total()} nodes in half precision, "
        f"{bundle.graph(HALF_FILE).stat().st_size / 1e6:.1f} MB"
    )


def describe_nodes(mixed: Mixed) -> Table:
    """The share of half-precision nodes by operator."""
    table = Table("operator", "half", "all", box=None)
    for operator, count in mixed.total.most_common():
        table.add_row(operator, str(mixed.half[operator]), str(count))
    for island, count in mixed.islands.items():
        table.add_row(f"float32: {island}", "", str(count))
    return table


def describe_verdicts(verdicts: Mapping[str, Verdict]) -> Table:
    """Each task's figures."""
    table = Table("task", "figure", "value", box=None)
    for task, verdict in verdicts.items():
        for name, value in verdict.figures.items():
            table.add_row(task, name, f"{value:.4g}")
    return table
