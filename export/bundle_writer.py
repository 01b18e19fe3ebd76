"""Writing a bundle: all of it or nothing."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort
from pydantic import TypeAdapter, ValidationError

from export.deployment_module import DeploymentGraph
from export.errors import ExportError
from export.onnx.convert import OPSET, convert
from export.parity import check_parity
from export.validation_images import Photo
from mtcp_serve.bundle.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
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
from mtcp_serve.utils.atomic import workshop
from training.postprocess import DEPTH_RANGE, NORMALS_FRAME
from training.tasks import IGNORE_LABEL, Kind, Task

PARITY_FILE = "parity.json"
CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class BundleOptions:
    """What a bundle says of itself."""

    name: str
    version: str
    card: Path | None = None
    """Text that becomes the bundle's ``MODEL_CARD.md``."""
    trained_on: str | None = None
    """Data sets, for the tasks whose manifest entry names them."""
    license: str | None = None
    """Terms of the weights."""


def write_bundle(
    graph: DeploymentGraph, photos: Mapping[str, Photo], out: Path, options: BundleOptions
) -> Manifest:
    """Convert, compare with PyTorch, and write the folder ``out``; return its manifest.

    The bundle is built beside ``out`` and renamed when it is complete. A bundle that was there is replaced.

    Raises:
        ExportError: ``out`` holds something that is no bundle or cannot be written, the name, version or card
            cannot be used, or the network cannot be exported.
        ParityError: the graph does not reproduce PyTorch. In every case ``out`` is as it was before.
    """
    if out.exists() and not (out / MANIFEST_FILE).is_file() and (out.is_file() or any(out.iterdir())):
        raise ExportError(f"{out} exists and is no bundle; choose another folder")
    for value in (options.name, options.version):
        try:
            TypeAdapter(Name).validate_python(value)
        except ValidationError as error:
            raise ExportError(
                f"{value!r} is no name or version for a bundle: {error.errors()[0]['msg']}"
            ) from error
    if options.card and not options.card.is_file():
        raise ExportError(f"there is no model card at {options.card}")
    with _built_beside(out) as bundle:
        bundle.mkdir()
        return _build(graph, photos, bundle, options)


@contextmanager
def revise_bundle(bundle: Path) -> Iterator[Path]:
    """Give a copy of the bundle to change; it takes the bundle's place when the block ends without an error.

    `record_files` states in its manifest what was changed.

    Raises:
        ExportError: a file cannot be written; the bundle is then as it was.
    """
    with _built_beside(bundle) as draft:
        shutil.copytree(bundle, draft)
        yield draft


def copy_bundle(bundle: Path, out: Path) -> None:
    """Copy a bundle to ``out``, which is not there yet: all of it or nothing.

    Raises:
        ExportError: a file cannot be read or written.
    """
    with _built_beside(out) as draft:
        shutil.copytree(bundle, draft)


def record_files(bundle: Path, opsets: Mapping[str, int | None]) -> Manifest:
    """Put the hashes of files, by name with the opset of each that is a graph, into the manifest."""
    manifest = Manifest.load(bundle)
    entries = {name: FileEntry.of(bundle / name, opset) for name, opset in opsets.items()}
    revised = manifest.model_copy(update={"files": {**manifest.files, **entries}})
    revised.save(bundle)
    return revised


def record_parity(bundle: Path, column: str, report: Mapping[str, object]) -> None:
    """Put a comparison into the bundle's ``parity.json`` under ``column``, beside what is there."""
    path = bundle / PARITY_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**known, column: report}, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _built_beside(out: Path) -> Iterator[Path]:
    """Give the path of a folder to make; without an error it takes the place of ``out`` afterwards."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with workshop(out.parent, out.name) as folder:
            bundle = folder / "bundle"
            yield bundle
            _put_in_place(bundle, out, folder / "replaced")
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}") from error


def _put_in_place(bundle: Path, out: Path, replaced: Path) -> None:
    try:
        if out.exists():
            out.rename(replaced)
        bundle.rename(out)
    except BaseException:  # an interrupt too: what was there would go with the workshop
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise


def _build(
    graph: DeploymentGraph, photos: Mapping[str, Photo], bundle: Path, options: BundleOptions
) -> Manifest:
    converted = convert(graph)
    model = bundle / MODEL_FILE
    onnx.save_model(converted.model, model)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    parity = bundle / PARITY_FILE
    parity.write_text(json.dumps(check_parity(session, graph, photos), indent=2) + "\n", encoding="utf-8")
    if options.card:
        shutil.copyfile(options.card, bundle / CARD_FILE)
    manifest = Manifest(
        name=options.name,
        version=options.version,
        input=InputSpec(height=graph.size[0], width=graph.size[1]),
        tasks=tuple(SPECS[task.kind](task, options.trained_on) for task in graph.tasks),
        files={MODEL_FILE: FileEntry.of(model, OPSET), PARITY_FILE: FileEntry.of(parity)},
        parameters=sum(converted.parameters.values()),
        gmacs=round(graph.gmacs(), 3),
        license=options.license or None,
    )
    manifest.check_graph(session.get_inputs(), session.get_outputs())
    manifest.save(bundle)
    return manifest


def _labels_spec(task: Task, _trained_on: str | None) -> TaskSpec:
    assert task.space is not None
    return LabelsTask(
        name=task.name,
        dataset=task.space.name,
        labels=task.space.labels,
        palette=task.space.palette,
        ignore_index=IGNORE_LABEL,
    )


SPECS: dict[Kind, Callable[[Task, str | None], TaskSpec]] = {
    "labels": _labels_spec,
    "depth": lambda task, trained_on: DepthTask(name=task.name, range=DEPTH_RANGE, trained_on=trained_on),
    "normals": lambda task, trained_on: NormalsTask(
        name=task.name, frame=NORMALS_FRAME, trained_on=trained_on
    ),
    "probability": lambda task, trained_on: ProbabilityTask(name=task.name, trained_on=trained_on),
}
"""What the manifest says of a task and what it was trained on, for each kind."""
