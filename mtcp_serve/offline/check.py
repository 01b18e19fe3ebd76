"""Whether a bundle can be trusted: its manifest, files, graphs, and the maps it makes of an image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MODEL_FILE, Manifest, TaskSpec
from mtcp_serve.bundle.onnx_nodes import Node, read_graph
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.figure import drawn
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.errors import BundleError, BundleMismatchError, InternalError
from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.png_file import write_png
from mtcp_serve.utils.concurrency import run

Status = Literal["ok", "failed", "not run"]
_GRIDSAMPLE_RENAMED = 20
"""From this opset on GridSample's default mode is called ``linear``."""


@dataclass(frozen=True)
class Row:
    """One check: what was looked at, how it went, and what was found."""

    check: str
    status: Status
    detail: str


def check_bundle(folder: Path, data: bytes | None = None, threads: int = 0) -> Iterator[Row]:
    """Check the bundle in ``folder``, one row per check.

    Nothing runs of a bundle whose files are not its own.

    The checks: the manifest's schema; the SHA-256 of every file; of every ``.onnx`` file the opset and the
    nodes that are known to go wrong in TensorRT; that the graph takes and gives what the manifest says; and,
    for each task, its map of the image in ``data`` (of a drawn picture if there is none).

    Raises:
        RequestError: ``data`` cannot be used.
    """
    data = drawing() if data is None else data
    image = decode(data, ImageLimits())
    try:
        bundle = Bundle.open(folder)
    except BundleError as error:
        yield Row("manifest", "failed", str(error))
        for check in ("files", "graph", "maps"):
            yield Row(check, "not run", "needs the manifest")
        return
    manifest = bundle.manifest
    tasks = ", ".join(task.name for task in manifest.tasks)
    yield Row(
        "manifest", "ok", f"schema {manifest.schema_version}: {manifest.name} {manifest.version}, {tasks}"
    )
    files = _row("files", partial(_files, bundle))
    yield files
    for name in manifest.files:
        if name.endswith(".onnx"):
            yield _row(f"{name} opset", partial(_opset, bundle, name))
            yield _row(f"{name} nodes", partial(_nodes, bundle, name))
    if files.status != "ok":
        for check in ("graph", "maps"):
            yield Row(check, "not run", "the files are not the manifest's")
        return
    try:
        engine = load_engine(bundle, options=EngineOptions("cpu", threads))
    except BundleError as error:
        yield Row("graph", "failed", str(error))
        yield Row("maps", "not run", "needs the graph")
        return
    yield Row("graph", "ok", f"opens in ONNX Runtime; takes and gives what the manifest says ({MODEL_FILE})")
    pixels = image.resized(manifest.input.height, manifest.input.width)
    try:
        maps = run(engine.infer(pixels[None], manifest.outputs))
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        yield Row("maps", "failed", f"ONNX Runtime cannot run the graph: {error}")
        return
    for task, values in zip(manifest.outputs, maps, strict=True):
        yield _row(f"map {task.name}", partial(_map, manifest, task, values))


def _row(check: str, look: Callable[[], str]) -> Row:
    try:
        return Row(check, "ok", look())
    except (BundleError, InternalError) as error:
        return Row(check, "failed", str(error))


def _files(bundle: Bundle) -> str:
    bundle.verify()
    return f"SHA-256 of {', '.join(bundle.manifest.files)}"


def _opset(bundle: Bundle, name: str) -> str:
    found, expected = read_graph(bundle.graph(name)).opset, bundle.manifest.files[name].opset
    if expected is not None and expected != found:
        raise BundleMismatchError(f"the manifest says {name} has opset {expected}, the graph has {found}")
    return f"opset {found}"


def _nodes(bundle: Bundle, name: str) -> str:
    graph = read_graph(bundle.graph(name))
    bad = [fault for node in graph.nodes if (fault := _fault(node, graph.opset))]
    if bad:
        raise BundleMismatchError("; ".join(dict.fromkeys(bad)))
    return f"{len(graph.nodes):,} nodes, none that TensorRT is known to get wrong"


def _fault(node: Node, opset: int) -> str | None:
    """What is wrong with a node."""
    if node.op_type == "CumSum":
        return f"CumSum ({node.name}): TensorRT miscompiles it; export position encodings as constants"
    default = "linear" if opset >= _GRIDSAMPLE_RENAMED else "bilinear"
    if node.op_type == "GridSample" and node.strings.get("mode", default) == "linear":
        return f"GridSample of mode linear ({node.name}): TensorRT reads it as nearest; export with opset 18"
    return None


def _map(manifest: Manifest, task: TaskSpec, values: Map) -> str:
    expected = (1, *task.output_shape(manifest.input.height, manifest.input.width))
    if values.shape != expected:
        raise InternalError(f"the map has shape {list(values.shape)}, the manifest says {list(expected)}")
    task.check(values[0])
    return task.inspect(values[0])


def drawing() -> bytes:
    """A drawn picture, PNG."""
    return write_png(Image.fromarray(drawn(240, 320)[0]))
