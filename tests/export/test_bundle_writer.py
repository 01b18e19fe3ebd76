"""Bundles: complete, self-consistent, and all or nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

import export.bundle_writer
from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.errors import ExportError, ParityError
from export.onnx.convert import Converted
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, Manifest, NormalsTask
from mtcp_serve.engines.onnxruntime import tensors
from mtcp_serve.errors import BundleWriteError
from tests.export.networks import HEIGHT, TASKS, WIDTH

OPTIONS = BundleOptions("tiny", "2")


@pytest.fixture
def ready(converted: Converted, monkeypatch: pytest.MonkeyPatch) -> Converted:
    """Saves the conversion; what a test does to this is what ends up in the bundle."""
    monkeypatch.setattr(export.bundle_writer, "convert", lambda graph: converted)
    return converted


def test_the_manifest_tells_the_truth(bundle: Path, graph: DeploymentGraph) -> None:
    manifest = Bundle.open(bundle).verify().manifest
    session = ort.InferenceSession(bundle / "model.onnx")
    manifest.check_graph(*tensors(session))
    assert (manifest.name, manifest.version) == ("tiny", "1")
    assert (manifest.input.height, manifest.input.width) == (HEIGHT, WIDTH)
    assert [(task.name, task.kind) for task in manifest.tasks] == [(task.name, task.kind) for task in TASKS]
    assert manifest.files["model.onnx"].opset == 18
    assert manifest.parameters == sum(value.numel() for value in graph.parameters())
    semseg, depth, normals, *_ = manifest.tasks
    assert isinstance(semseg, LabelsTask)
    assert semseg.labels[:2] == ("background", "aeroplane")
    assert isinstance(depth, DepthTask)
    assert depth.range == (0.1, 10.0)
    assert isinstance(normals, NormalsTask)
    assert normals.frame == "x right, y up, z towards the camera"


def test_maps_out_of_the_bundle_are_those_of_pytorch(
    bundle: Path, graph: DeploymentGraph, images: dict[str, RgbImage]
) -> None:
    stack = np.stack(list(images.values()))
    session = ort.InferenceSession(bundle / "model.onnx")
    depth, saliency = session.run(["depth", "saliency"], {"image": stack})
    with torch.inference_mode():
        expected = graph(torch.from_numpy(stack))
    np.testing.assert_allclose(depth, expected["depth"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(saliency, expected["saliency"].numpy(), rtol=1e-5)


def test_parity_is_recorded(bundle: Path, images: dict[str, RgbImage]) -> None:
    report = json.loads((bundle / "parity.json").read_text())
    assert report["images"] == list(images)
    assert report["tasks"]["semseg"]["batch_3"]["agreement"] >= 0.999
    assert report["tasks"]["depth"]["batch_1"]["relative_error_p99"] <= 1e-3


def spoil(converted: Converted, task: str) -> None:
    for tensor in converted.model.graph.initializer:
        if tensor.name == f"network.heads.{task}.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))


def test_failed_parity_leaves_nothing(
    ready: Converted, graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    spoil(ready, "depth")
    with pytest.raises(ParityError, match="task 'depth'"):
        write_bundle(graph, images, tmp_path / "new", OPTIONS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready")
def test_a_bundle_is_replaced_as_a_whole(
    graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Tiny\n")
    out = tmp_path / "bundle"
    write_bundle(graph, images, out, BundleOptions("tiny", "1", card=card, license="MIT"))
    assert Manifest.load(out).license == "MIT"
    assert (out / "MODEL_CARD.md").read_text() == "# Tiny\n"
    with Bundle.open(out).edit() as draft:
        draft.add("model_fp16.onnx").write_bytes((out / "model.onnx").read_bytes())
    write_bundle(graph, images, out, BundleOptions("tiny", "2", card=out / "MODEL_CARD.md"))
    assert Manifest.load(out).version == "2"
    assert Manifest.load(out).license is None
    left = ["MODEL_CARD.md", "manifest.json", "model.onnx", "parity.json"]
    assert sorted(path.name for path in out.iterdir()) == left
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "card.md"]


@pytest.mark.parametrize("spoilt", [False, True], ids=["a bundle", "a manifest of another schema"])
def test_what_is_not_of_the_bundle_that_is_replaced_is_not_lost(
    graph: DeploymentGraph,
    images: dict[str, RgbImage],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoilt: bool,
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "ours"))
    for name in ("MODEL_CARD.md", "model.safetensors"):
        (out / name).write_text("days of work")
    if spoilt:
        (out / "manifest.json").write_text('{"schema": 2}')
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.delattr(export.bundle_writer, "convert")  # it is told before the work
    with pytest.raises(BundleWriteError, match=r"ours would be .* MODEL_CARD\.md, model\.safetensors would"):
        write_bundle(graph, images, out, OPTIONS)
    card = BundleOptions("tiny", "2", card=out / "MODEL_CARD.md")
    with pytest.raises(BundleWriteError, match=r"as a whole, and model\.safetensors would be lost; move"):
        write_bundle(graph, images, out, card)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_failed_parity_keeps_the_old_bundle(
    ready: Converted, graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    write_bundle(graph, images, out, OPTIONS)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    spoil(ready, "saliency")
    with pytest.raises(ParityError, match="task 'saliency'"):
        write_bundle(graph, images, out, BundleOptions("tiny", "3"))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(OSError("no space"), BundleWriteError), (KeyboardInterrupt("now"), KeyboardInterrupt)],
)
@pytest.mark.usefixtures("ready")
def test_an_old_bundle_comes_back_if_the_new_one_cannot_take_its_place(
    failure: BaseException,
    seen: type[BaseException],
    graph: DeploymentGraph,
    images: dict[str, RgbImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "bundle"
    write_bundle(graph, images, out, OPTIONS)
    rename = Path.rename

    def stubborn(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise failure
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(seen, match=str(failure)):
        write_bundle(graph, images, out, BundleOptions("tiny", "3"))
    assert Manifest.load(out).version == "2"
    assert list(tmp_path.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_named(
    graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleWriteError, match=r"file/bundle cannot be written: .*file"):
        write_bundle(graph, images, tmp_path / "file" / "bundle", OPTIONS)


def test_a_copy_is_whole_or_not_there(bundle: Path, tmp_path: Path) -> None:
    Bundle.open(bundle).copy(tmp_path / "copy")
    Bundle.open(tmp_path / "copy").verify()
    (tmp_path / "copy" / "notes").symlink_to("nowhere")
    with pytest.raises(BundleWriteError, match=r"other cannot be written: .*notes"):
        Bundle.open(tmp_path / "copy").copy(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_folder_of_something_else_is_not_touched(
    graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleWriteError, match="not a bundle"):
        write_bundle(graph, images, tmp_path, OPTIONS)
    with pytest.raises(BundleWriteError, match="not a bundle"):
        write_bundle(graph, images, tmp_path / "thesis.tex", OPTIONS)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BundleOptions("no spaces", "1"), "'no spaces' is not a name"),
        (BundleOptions("tiny", ""), "'' is not a name or version"),
        (BundleOptions("tiny", "1", card=Path("missing.md")), r"no model card at missing\.md"),
    ],
)
def test_bad_options_are_refused_before_the_work(
    options: BundleOptions, message: str, graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        write_bundle(graph, images, tmp_path / "new", options)
    assert list(tmp_path.iterdir()) == []
