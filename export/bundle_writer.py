"""Writing a bundle: all of it or nothing."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort
from pydantic import TypeAdapter, ValidationError

from export.deployment_module import DeploymentGraph
from export.errors import ExportError
from export.interrupts import check_interrupted
from export.onnx.convert import OPSET, convert
from export.parity import check_parity
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle, create_bundle
from mtcp_serve.bundle.manifest import (
    CARD_FILE,
    MODEL_FILE,
    PARITY_FILE,
    Confidence,
    DepthTask,
    FileEntry,
    InputSpec,
    LabelsTask,
    Manifest,
    Name,
    NormalsTask,
    ProbabilityTask,
    TaskSpec,
)
from mtcp_serve.engines.onnxruntime import tensors
from mtcp_serve.kinds.confidence import SUFFIX
from training.label_spaces import IGNORE_LABEL
from training.postprocess import DEPTH_RANGE, NORMALS_FRAME
from training.tasks import Kind, Task


@dataclass(frozen=True)
class BundleOptions:
    """What a bundle says of itself."""

    name: str
    version: str
    card: Path | None = None
    """Text that becomes the bundle's ``MODEL_CARD.md``."""
    trained_on: str | None = None
    """What it learnt from, in plain words, for the tasks whose manifest entry says so."""
    license: str | None = None
    """Terms of the weights."""


def write_bundle(
    graph: DeploymentGraph, images: Mapping[str, RgbImage], out: Path, options: BundleOptions
) -> Bundle:
    """Convert, compare with PyTorch, and write the bundle ``out``.

    The bundle is built beside ``out`` and renamed when it is complete. A bundle that was there is replaced.

    Raises:
        BundleWriteError: ``out`` holds what is not of a bundle and would be lost, or cannot be written.
        ExportError: the name, version or card cannot be used, or the network cannot be exported.
        ParityError: the graph does not reproduce PyTorch. In every case ``out`` is as it was before.
    """
    for value in (options.name, options.version):
        try:
            TypeAdapter(Name).validate_python(value)
        except ValidationError as error:
            raise ExportError(
                f"{value!r} is not a name or version for a bundle: {error.errors()[0]['msg']}"
            ) from error
    if options.card and not options.card.is_file():
        raise ExportError(f"there is no model card at {options.card}")
    with create_bundle(out, [CARD_FILE] if options.card else []) as folder:
        manifest = _build(graph, images, folder, options)
        check_interrupted()
    return Bundle(out, manifest)


def _build(
    graph: DeploymentGraph, images: Mapping[str, RgbImage], bundle: Path, options: BundleOptions
) -> Manifest:
    converted = convert(graph)
    model = bundle / MODEL_FILE
    onnx.save_model(converted.model, model)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    parity = bundle / PARITY_FILE
    parity.write_text(json.dumps(check_parity(session, graph, images), indent=2) + "\n", encoding="utf-8")
    if options.card:
        shutil.copyfile(options.card, bundle / CARD_FILE)
    manifest = Manifest(
        name=options.name,
        version=options.version,
        input=InputSpec(height=graph.size[0], width=graph.size[1]),
        tasks=_specs(graph, session, options),
        files={MODEL_FILE: FileEntry.of(model, OPSET), PARITY_FILE: FileEntry.of(parity)},
        parameters=sum(converted.parameters.values()),
        gmacs=round(graph.gmacs(), 3),
        license=options.license or None,
    )
    manifest.check_graph(*tensors(session))
    manifest.save(bundle)
    return manifest


def _specs(
    graph: DeploymentGraph, session: ort.InferenceSession, options: BundleOptions
) -> tuple[TaskSpec, ...]:
    """What the manifest says of each task; of its confidence the size that the opened graph gives."""
    sizes = {output.name: output.shape[1:] for output in session.get_outputs()}
    found = []
    for task in graph.tasks:
        spec, name = SPECS[task.kind](task, options.trained_on), task.name + SUFFIX
        if task in graph.confident:
            height, width = sizes[name]
            sure = Confidence(output=name, height=height, width=width)
            spec = spec.model_copy(update={"confidence": sure})
        found.append(spec)
    return tuple(found)


TITLES = {
    "semseg": "Objects",
    "depth": "Distance",
    "normals": "Surface directions",
    "saliency": "Subject",
    "parsing": "Clothes and skin",
}
"""What people call the maps of the tasks."""


def _labels_spec(task: Task, _trained_on: str | None) -> TaskSpec:
    assert task.space is not None
    return LabelsTask(
        name=task.name,
        title=TITLES.get(task.name),
        dataset=task.space.name,
        labels=task.space.labels,
        palette=task.space.palette,
        ignore_index=IGNORE_LABEL,
    )


SPECS: dict[Kind, Callable[[Task, str | None], TaskSpec]] = {
    "labels": _labels_spec,
    "depth": lambda task, trained_on: DepthTask(
        name=task.name, title=TITLES.get(task.name), range=DEPTH_RANGE, trained_on=trained_on
    ),
    "normals": lambda task, trained_on: NormalsTask(
        name=task.name, title=TITLES.get(task.name), frame=NORMALS_FRAME, trained_on=trained_on
    ),
    "probability": lambda task, trained_on: ProbabilityTask(
        name=task.name, title=TITLES.get(task.name), trained_on=trained_on
    ),
}
"""What the manifest says of a task and what it was trained on, for each kind."""
