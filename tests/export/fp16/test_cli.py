"""``python -m export.precision``: a bundle with an FP16 graph, or the bundle as it was."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

import export.fp16.cli
from export.errors import ParityError
from export.fp16.cli import add_fp16, app
from export.fp16.mixed import Mixed, to_mixed_precision
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.errors import BundleMismatchError, BundleWriteError
from tests.export.networks import TASKS


@pytest.fixture
def ours(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    import shutil

    return Path(shutil.copytree(bundle, tmp_path / "ours"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_fp16_graph_is_added_and_recorded(ours: Path, images: dict[str, RgbImage]) -> None:
    before = json.loads((ours / "parity.json").read_text())
    mixed, results = add_fp16(Bundle.open(ours), images)
    manifest = Bundle.open(ours).verify().manifest
    assert manifest.files["model_fp16.onnx"].opset == 18
    report = json.loads((ours / "parity.json").read_text())
    column = report.pop("fp16")
    assert report == before
    assert column["tasks"] == {task: result.metrics for task, result in results.items()}
    assert list(column["tasks"]) == [task.name for task in TASKS]
    assert column["tasks"]["depth"]["rmse_m"] > 0
    assert column["fp16_nodes"] == mixed.fp16.total() > 0
    stored = onnx.load_model(ours / "model_fp16.onnx")
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in stored.graph.initializer)


def test_the_command_says_what_became_fp16(ours: Path, images: dict[str, RgbImage], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    ids = tmp_path / "val.txt"
    ids.write_text("wave1")
    result = CliRunner().invoke(app, [str(ours), "--images", str(folder), "--ids", str(ids)])
    assert result.exit_code == 0, result.output
    assert "Conv" in result.stdout
    assert "nodes in FP16" in result.stdout
    assert "saliency" in result.stdout
    assert json.loads((ours / "parity.json").read_text())["fp16"]["images"] == ["wave1.png"]


def test_a_graph_that_is_cut_off_is_told(ours: Path, images: dict[str, RgbImage]) -> None:
    """Its hash in the manifest is that of what is there."""
    graph = ours / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:2000])
    with Bundle.open(ours).edit() as draft:
        draft.add(graph.name)
    with pytest.raises(BundleMismatchError, match=r"model\.onnx cannot be read as ONNX: "):
        add_fp16(Bundle.open(ours), images)


def test_a_graph_may_compute_in_fp16_here_and_there(ours: Path, images: dict[str, RgbImage]) -> None:
    """With weights in FP16 that are not `export.onnx.fp16_weights`': nobody casts them back."""
    model = onnx.load(ours / "model.onnx")
    for node in model.graph.node:
        node.output[:] = [f"{name}.float" if name == "saliency" else name for name in node.output]
        node.input[:] = [f"{name}.float" if name == "saliency" else name for name in node.input]
    nothing = numpy_helper.from_array(np.zeros(1, np.float16), "nothing")
    model.graph.initializer.append(nothing)
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["saliency.float"], ["saliency.fp16"], to=TensorProto.FLOAT16),
            helper.make_node("Add", ["nothing", "saliency.fp16"], ["saliency.same"]),
            helper.make_node("Cast", ["saliency.same"], ["saliency"], to=TensorProto.FLOAT),
        ]
    )
    onnx.save(model, ours / "model.onnx")
    with Bundle.open(ours).edit() as draft:
        draft.add("model.onnx", 18)
    mixed, results = add_fp16(Bundle.open(ours), images)
    assert mixed.fp16["Conv"]
    assert results["saliency"].fault is None
    assert "nothing" in {tensor.name for tensor in mixed.model.graph.initializer}


def test_a_bundle_that_cannot_be_written_is_told_before_the_work(
    ours: Path, images: dict[str, RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == ours)
    monkeypatch.delattr(export.fp16.cli, "to_mixed_precision")
    with pytest.raises(BundleWriteError, match="volume of its own"):
        add_fp16(Bundle.open(ours), images)


def test_the_bundle_may_be_the_folder_that_one_is_in(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ours)
    result = CliRunner().invoke(app, ["."])
    assert result.exit_code == 0, result.output
    Bundle.open(ours).verify()
    assert (ours / "model_fp16.onnx").is_file()
    assert [path.name for path in ours.parent.iterdir()] == ["ours"]


def test_a_graph_that_fp16_spoils_is_refused_by_task(
    ours: Path, images: dict[str, RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(model: onnx.ModelProto, ranges: dict[str, float]) -> Mixed:
        mixed = to_mixed_precision(model, ranges)
        for tensor in mixed.model.graph.initializer:
            if tensor.name.startswith("network.heads.depth.bias"):
                tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * 2), tensor.name))
        return mixed

    monkeypatch.setattr(export.fp16.cli, "to_mixed_precision", careless)
    before = contents(ours)
    with pytest.raises(
        ParityError, match=r"model_fp16\.onnx does not reproduce model\.onnx: task 'depth'"
    ) as caught:
        add_fp16(Bundle.open(ours), images)
    assert list(caught.value.faults) == ["depth"]
    assert contents(ours) == before
    assert [path.name for path in ours.parent.iterdir()] == ["ours"]


def test_a_damaged_bundle_is_refused(ours: Path, images: dict[str, RgbImage]) -> None:
    with (ours / "model.onnx").open("ab") as file:
        file.write(b"?")
    with pytest.raises(BundleMismatchError, match="SHA-256"):
        add_fp16(Bundle.open(ours), images)
    result = CliRunner().invoke(app, [str(ours)])
    assert result.exit_code == 2
    assert "error:" in result.stderr


def test_values_change_but_little(ours: Path, images: dict[str, RgbImage]) -> None:
    _, results = add_fp16(Bundle.open(ours), images)
    assert results["semseg"].metrics["agreement"] > 0.99
    assert np.isfinite([value for result in results.values() for value in result.metrics.values()]).all()
