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
from export.fp16.cli import HALF_FILE, add_half, judge_half
from export.onnx.convert import OPSET
from export.onnx.half_weights import load_halves
from export.parity import HALF, Verdict, judge, refuse, run_in_batches, run_onnx
from export.trt.build import Profile, build_plan
from export.trt.engine import Engine, half_share, precision_histogram
from export.trt.graph import Deformable, for_tensorrt
from export.trt.machine import Machine
from export.trt.plan import PLAN_FILE, SIDECAR_FILE, Sidecar
from export.validation_images import Photo
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, FileEntry

GRAPH_FILE = "model_trt.onnx"
LAYERS_FILE = "model.plan.layers.json"
"""What the inspector says of each layer."""
GRAPH_COLUMN, PLAN_COLUMN = "tensorrt_graph", "tensorrt"
"""Where ``parity.json`` keeps the comparisons of the graph that TensorRT gets and of the plan."""


@dataclass(frozen=True)
class Settings:
    """How a plan is built and what it must show."""

    profile: Profile
    workspace_gib: float | None = None
    timing_cache: Path | None = None
    half_threshold: float = 0.5
    """Least share of half-precision layers among the floating-point ones."""


def prepare(bundle: Bundle, photos: Mapping[str, Photo], deformable: Deformable) -> None:
    """Add `GRAPH_FILE` and `HALF_FILE` to a bundle, where it has none yet. Needs no TensorRT.

    Raises:
        BundleError: its files are not those of its manifest, or cannot be written.
        ExportError: a graph cannot be made.
        ParityError: a task's maps are beyond `export.parity.HALF`; what was there before stays.
    """
    if HALF_FILE not in bundle.manifest.files:
        add_half(bundle, photos)
    manifest = bundle.verify().manifest
    origin = {"deformable": deformable, "half_sha256": manifest.files[HALF_FILE].sha256}
    if GRAPH_FILE in manifest.files and _graph_report(bundle).items() >= origin.items():
        return
    whole = load_halves(onnx.load_model(bundle.graph()))
    prepared = for_tensorrt(onnx.load_model(bundle.graph(HALF_FILE)), deformable)
    verdicts = judge_half(manifest, whole, prepared, photos)
    refuse({"FP16": verdicts}, f"{GRAPH_FILE} does not reproduce {MODEL_FILE}")
    with bundle.edit() as draft:
        onnx.save_model(prepared, draft.add(GRAPH_FILE, OPSET))
        draft.record_parity(GRAPH_COLUMN, {**origin, **_report({"emulated": verdicts}, photos)})


def build(
    bundle: Bundle,
    photos: Mapping[str, Photo],
    settings: Settings,
    trt: ModuleType,
    here: Machine,
) -> Sidecar:
    """Build the plan of a prepared bundle, read its precision back, compare its maps, and add it.

    Raises:
        PlanError: TensorRT refuses, or too few layers are in half precision.
        ParityError: a task's maps are beyond `export.parity.HALF`. The bundle is then as it was.
    """
    manifest = bundle.manifest
    photo = manifest.input
    plan = build_plan(
        trt,
        bundle.graph(GRAPH_FILE),
        photo,
        settings.profile,
        workspace_gib=settings.workspace_gib,
        timing_cache=settings.timing_cache,
    )
    engine = Engine(trt, plan)
    layers = engine.layers(settings.profile.opt, photo.height, photo.width)
    histogram = precision_histogram(layers)
    share = half_share(histogram)
    if share < settings.half_threshold:
        raise PlanError(
            f"{share:.0%} of the plan's floating-point layers are in half precision "
            f"({dict(histogram)}), at least {settings.half_threshold:.0%} must be"
        )
    verdicts = judge_plan(bundle, engine, photos, settings.profile)
    report = _report(verdicts, photos)
    with bundle.edit() as draft:
        draft.add(PLAN_FILE).write_bytes(plan)
        draft.add(LAYERS_FILE).write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")
        sidecar = Sidecar(
            plan_sha256=FileEntry.of(draft.folder / PLAN_FILE).sha256,
            onnx=GRAPH_FILE,
            onnx_sha256=manifest.files[GRAPH_FILE].sha256,
            machine=here,
            profile=settings.profile,
            deformable=_graph_report(bundle)["deformable"],
            workspace_gib=settings.workspace_gib,
            timing_cache=settings.timing_cache and settings.timing_cache.name,
            layers=dict(histogram),
            half_share=share,
            parity=report,
        )
        draft.add(SIDECAR_FILE).write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
        draft.record_parity(PLAN_COLUMN, report)
    return sidecar


def _graph_report(bundle: Bundle) -> dict[str, Any]:
    """What ``parity.json`` says of the bundle's `GRAPH_FILE`."""
    report: dict[str, Any] = bundle.parity()[GRAPH_COLUMN]
    return report


def judge_plan(
    bundle: Bundle, engine: Engine, photos: Mapping[str, Photo], profile: Profile
) -> dict[str, dict[str, Verdict]]:
    """The verdicts on a plan against the bundle's float32 graph, at its smallest batch and the tuned one.

    Raises:
        ParityError: a task's maps are beyond `export.parity.HALF`.
    """
    manifest = bundle.manifest
    images = np.stack(list(photos.values()))
    session = ort.InferenceSession(bundle.graph(), providers=["CPUExecutionProvider"])
    reference = run_onnx(session, images, 1)
    wanted = {task.name: reference[task.output] for task in manifest.tasks}
    kinds = {task.name: task.kind for task in manifest.tasks}
    verdicts = {}
    for batch in sorted({profile.min, profile.opt}):
        found = run_in_batches(engine.run, images, batch)
        maps = {task.name: found[task.output] for task in manifest.tasks}
        verdicts[f"batch_{batch}"] = judge(maps, wanted, kinds, HALF)
    refuse(verdicts, f"the plan does not reproduce {MODEL_FILE}")
    return verdicts


def _report(verdicts: Mapping[str, Mapping[str, Verdict]], photos: Mapping[str, Photo]) -> dict[str, object]:
    return {
        "against": MODEL_FILE,
        "photos": list(photos),
        "limits": asdict(HALF),
        "tasks": {
            circumstance: {task: verdict.figures for task, verdict in tasks.items()}
            for circumstance, tasks in verdicts.items()
        },
    }
