"""The steps from a bundle to a plan; each proves its result before it is kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from export.errors import PlanError
from export.fp16.cli import FP16_FILE, add_fp16, evaluate_fp16
from export.interrupts import check_interrupted
from export.onnx.convert import OPSET
from export.onnx.fp16_weights import load_fp16_weights
from export.onnx.nodes import read_model
from export.parity import FP16, Result, evaluate, raise_faults, run_in_batches, run_onnx
from export.trt.build import Profile, build_plan
from export.trt.engine import Engine, fp16_share, precision_histogram
from export.trt.graph import Deformable, for_tensorrt
from export.trt.machine import Machine, RtxTargets
from export.trt.network import Layer
from export.trt.plan import PlanFiles, Sidecar, load_plan
from export.trt.target import Target
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle, Draft
from mtcp_serve.bundle.manifest import MODEL_FILE, FileEntry

GRAPH_FILE = "model_trt.onnx"
GRAPH_COLUMN = "tensorrt_graph"
"""Where ``parity.json`` keeps the comparison of the graph that TensorRT gets."""


@dataclass(frozen=True)
class Settings:
    """How a plan is built and what it must show."""

    profile: Profile
    workspace_gib: float | None = None
    timing_cache: Path | None = None
    fp16_threshold: float = 0.5
    """Least share of FP16 layers among the floating-point ones."""


def prepare(bundle: Bundle, images: Mapping[str, RgbImage], deformable: Deformable) -> None:
    """Add `GRAPH_FILE` and `FP16_FILE` to a bundle, where it has none yet. Needs no TensorRT.

    Raises:
        BundleError: its files are not those of its manifest, or cannot be written.
        ExportError: a graph cannot be made.
        ParityError: a task's maps are beyond `export.parity.FP16`; what was there before stays.
    """
    if FP16_FILE not in bundle.manifest.files:
        add_fp16(bundle, images)
    manifest = bundle.verify().manifest
    origin = {"deformable": deformable, "fp16_sha256": manifest.files[FP16_FILE].sha256}
    if GRAPH_FILE in manifest.files and _graph_report(bundle).items() >= origin.items():
        return
    bundle.check_editable()
    whole = load_fp16_weights(read_model(bundle.graph()))
    prepared = for_tensorrt(read_model(bundle.graph(FP16_FILE)), deformable)
    results = evaluate_fp16(manifest, whole, prepared, images)
    raise_faults({"FP16": results}, f"{GRAPH_FILE} does not reproduce {MODEL_FILE}")
    with bundle.edit() as draft:
        onnx.save_model(prepared, draft.add(GRAPH_FILE, OPSET))
        draft.record_parity(GRAPH_COLUMN, {**origin, **_report({"emulated": results}, images)})
        check_interrupted()


def build(
    bundle: Bundle,
    images: Mapping[str, RgbImage],
    settings: Settings,
    trt: ModuleType,
    built_for: Machine | RtxTargets,
) -> Sidecar:
    """Build the plan of a prepared bundle, read its precision back, compare its maps, and add it.

    A plan for GPUs that need not be here cannot be run: the precision is that of the parsed network, which a
    strongly typed build keeps, and the maps are not compared until `check`.

    Raises:
        PlanError: TensorRT refuses, or too few layers are in FP16.
        ParityError: a task's maps are beyond `export.parity.FP16`.
        BundleError: a file cannot be written. In every case the bundle is then as it was.
    """
    target = Target(built_for.compute_capabilities) if isinstance(built_for, RtxTargets) else Target()
    bundle.check_editable()
    built = build_plan(
        trt,
        bundle.graph(GRAPH_FILE),
        bundle.manifest.input,
        settings.profile,
        workspace_gib=settings.workspace_gib,
        timing_cache=settings.timing_cache,
        target=target,
    )
    engine = None if target.rtx else Engine(trt, built.plan)
    layers = built.layers if engine is None else _engine_layers(bundle, engine, settings.profile)
    share = _checked_share(layers, settings.fp16_threshold)
    report = None
    if engine is not None:
        report = _report(evaluate_plan(bundle, engine, images, settings.profile), images)
    files = PlanFiles.of(target)
    with bundle.edit() as draft:
        draft.add(files.plan).write_bytes(built.plan)
        sidecar = Sidecar(
            plan_sha256=FileEntry.of(draft.folder / files.plan).sha256,
            onnx=GRAPH_FILE,
            onnx_sha256=bundle.manifest.files[GRAPH_FILE].sha256,
            built_for=built_for,
            profile=settings.profile,
            deformable=_graph_report(bundle)["deformable"],
            workspace_gib=settings.workspace_gib,
            timing_cache=settings.timing_cache and settings.timing_cache.name,
            tensors=built.tensors,
            layers=dict(precision_histogram(layers)),
            fp16_share=share,
            parity=report,
        )
        _write(draft, files, sidecar, layers)
        check_interrupted()
    return sidecar


def check(
    bundle: Bundle,
    images: Mapping[str, RgbImage],
    settings: Settings,
    trt: ModuleType,
    here: Machine,
    target: Target,
) -> dict[str, dict[str, Result]]:
    """Run the plan that a bundle has and compare its maps.

    A plan that was built where it could not run is finished by it: what the inspector says of its layers, and
    the comparison, are written into the bundle.

    Raises:
        PlanMismatchError: the plan is not for this machine.
        PlanError: it cannot be loaded or run, or too few layers are in FP16.
        ParityError: a task's maps are beyond `export.parity.FP16`. The bundle is then as it was.
    """
    engine, sidecar = load_plan(bundle.folder, trt, here, target)
    if sidecar.parity is None:
        bundle.check_editable()
    results = evaluate_plan(bundle, engine, images, sidecar.profile)
    if sidecar.parity is None:
        layers = _engine_layers(bundle, engine, sidecar.profile)
        share = _checked_share(layers, settings.fp16_threshold)
        found = {
            "layers": dict(precision_histogram(layers)),
            "fp16_share": share,
            "parity": _report(results, images),
        }
        with bundle.edit() as draft:
            _write(draft, PlanFiles.of(target), sidecar.model_copy(update=found), layers)
    return results


def _write(draft: Draft, files: PlanFiles, sidecar: Sidecar, layers: list[Layer]) -> None:
    draft.add(files.layers).write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
    draft.add(files.sidecar).write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if sidecar.parity is not None:
        draft.record_parity(files.column, sidecar.parity)


def _engine_layers(bundle: Bundle, engine: Engine, profile: Profile) -> list[Layer]:
    image = bundle.manifest.input
    return engine.layers(profile.opt, image.height, image.width)


def _checked_share(layers: list[Layer], threshold: float) -> float:
    histogram = precision_histogram(layers)
    share = fp16_share(histogram)
    if share < threshold:
        raise PlanError(
            f"{share:.0%} of the plan's floating-point layers are in FP16 "
            f"({dict(histogram)}), at least {threshold:.0%} must be"
        )
    return share


def _graph_report(bundle: Bundle) -> dict[str, Any]:
    """What ``parity.json`` says of the bundle's `GRAPH_FILE`."""
    report: dict[str, Any] = bundle.parity()[GRAPH_COLUMN]
    return report


def evaluate_plan(
    bundle: Bundle, engine: Engine, images: Mapping[str, RgbImage], profile: Profile
) -> dict[str, dict[str, Result]]:
    """The results on a plan against the bundle's float32 graph, at its smallest batch and the tuned one.

    Raises:
        ParityError: a task's maps are beyond `export.parity.FP16`.
    """
    manifest = bundle.manifest
    stack = np.stack(list(images.values()))
    session = ort.InferenceSession(bundle.graph(), providers=["CPUExecutionProvider"])
    reference = run_onnx(session, stack, 1)
    expected = {task.name: reference[task.output] for task in manifest.outputs}
    kinds = {task.name: task.kind for task in manifest.outputs}
    results = {}
    for batch in sorted({profile.min, profile.opt}):
        found = run_in_batches(engine.run, stack, batch)
        maps = {task.name: found[task.output] for task in manifest.outputs}
        results[f"batch_{batch}"] = evaluate(maps, expected, kinds, FP16)
    raise_faults(results, f"the plan does not reproduce {MODEL_FILE}")
    return results


def _report(results: Mapping[str, Mapping[str, Result]], images: Mapping[str, RgbImage]) -> dict[str, object]:
    return {
        "against": MODEL_FILE,
        "images": list(images),
        "limits": asdict(FP16),
        "tasks": {
            circumstance: {task: result.metrics for task, result in tasks.items()}
            for circumstance, tasks in results.items()
        },
    }
