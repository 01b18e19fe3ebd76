"""The command line from a checkpoint to a bundle."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import export.bundle_writer
import export.onnx.cli
import mtcp_serve
from export.onnx.convert import Converted
from export.validation_images import RgbImage
from mtcp_serve.bundle.manifest import DepthTask, Manifest, NormalsTask
from tests.export.networks import HEIGHT, TASKS, WIDTH, TinyNetwork
from training.checkpoint import save
from training.config import load_config
from training.data import SourceConfig
from training.model import build_network

SOURCE = SourceConfig(kind="scenes", title="drawn rooms")


@pytest.fixture
def network() -> TinyNetwork:
    return TinyNetwork()


@pytest.fixture
def arguments(
    network: TinyNetwork,
    converted: Converted,
    images: dict[str, RgbImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Arguments for a checkpoint of the tiny network, whose conversion without refinement is at hand."""
    sources = (
        SOURCE,
        SourceConfig(kind="folder", root="data/nyuv2"),
    )
    config = SimpleNamespace(
        name="tiny", tasks=TASKS, data=SimpleNamespace(height=HEIGHT, width=WIDTH, train=sources)
    )
    monkeypatch.setattr(export.onnx.cli, "load_network", lambda path: (network, config))
    monkeypatch.setattr(export.bundle_writer, "convert", lambda graph: converted)
    (tmp_path / "ckpt.pt").touch()
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    return [
        str(tmp_path / "ckpt.pt"),
        "-o",
        str(tmp_path / "bundle"),
        "--images",
        str(tmp_path / "images"),
        "--plain",
    ]


def test_it_writes_a_bundle(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(export.onnx.cli.app, [*arguments, "--version", "7"])
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "bundle")
    assert (manifest.name, manifest.version) == ("tiny", "7")
    depth = manifest.tasks[1]
    assert isinstance(depth, DepthTask)
    assert depth.trained_on == "drawn rooms, nyuv2"
    assert "tiny 7, 64x96, semseg, depth, normals, saliency, parsing" in result.output


def test_it_may_be_told_what_the_network_learnt_from(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(export.onnx.cli.app, [*arguments, "--trained-on", "images of rooms"])
    assert result.exit_code == 0, result.output
    tasks = {task.name: task for task in Manifest.load(tmp_path / "bundle").tasks}
    depth, normals = tasks["depth"], tasks["normals"]
    assert isinstance(depth, DepthTask)
    assert isinstance(normals, NormalsTask)
    assert depth.trained_on == normals.trained_on == "images of rooms"


def test_maps_are_refined_unless_told_otherwise(arguments: list[str], tmp_path: Path) -> None:
    """The graph at hand, which is plain, is not that of PyTorch then."""
    result = CliRunner().invoke(export.onnx.cli.app, arguments[:-1])
    assert result.exit_code == 1
    assert "ONNX Runtime does not reproduce PyTorch: task 'semseg': labels agree on" in result.output
    assert "'normals'" not in result.output
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("flags", [["--fp16-weights"], ["--half-weights"], []], ids=str)
def test_fp16_weights_round_the_network(arguments: list[str], network: TinyNetwork, flags: list[str]) -> None:
    result = CliRunner().invoke(export.onnx.cli.app, [*arguments, *flags])
    assert result.exit_code == 0, result.output
    weights = network.stem.weight
    assert torch.equal(weights, weights.half().float()) == bool(flags)


def test_failed_parity_ends_with_status_1_and_the_task(
    arguments: list[str], converted: Converted, tmp_path: Path
) -> None:
    for tensor in converted.model.graph.initializer:
        if tensor.name == "network.heads.normals.bias":
            tensor.raw_data = np.ones(3, np.float32).tobytes()
    result = CliRunner().invoke(export.onnx.cli.app, arguments)
    assert result.exit_code == 1
    assert "task 'normals'" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_the_input_may_have_another_size_than_in_training(
    network: TinyNetwork, images: dict[str, RgbImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with PyTorch at that size, and opened by ONNX Runtime as that."""
    config = SimpleNamespace(
        name="tiny", tasks=TASKS, data=SimpleNamespace(height=HEIGHT, width=WIDTH, train=(SOURCE,))
    )
    monkeypatch.setattr(export.onnx.cli, "load_network", lambda path: (network, config))
    (tmp_path / "ckpt.pt").touch()
    size = ["--height", "48", "--width", "80"]
    result = CliRunner().invoke(
        export.onnx.cli.app, [str(tmp_path / "ckpt.pt"), "-o", str(tmp_path / "bundle"), *size]
    )
    assert result.exit_code == 0, result.output
    with mtcp_serve.load(tmp_path / "bundle", threads=1) as model:
        assert (model.manifest.input.height, model.manifest.input.width) == (48, 80)
        assert {values.shape[:2] for values in model.predict(images["wave0"], size="model").values()} == {
            (48, 80)
        }


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--height", "48"], "both"), (["--width", "48"], "both"), (["--height", "8", "--width", "48"], "32")],
    ids=str,
)
def test_half_a_size_or_none_at_all_is_refused(
    arguments: list[str], tmp_path: Path, given: list[str], said: str
) -> None:
    result = CliRunner().invoke(export.onnx.cli.app, [*arguments, *given])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("place", ["", "weights"])
def test_a_checkpoint_in_the_folder_that_is_replaced_is_refused(
    arguments: list[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Before it is read: ``model.safetensors`` lies beside the graph of the shipped bundle."""
    ours = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (ours / place).mkdir(exist_ok=True)
    checkpoint = ours / place / "model.safetensors"
    checkpoint.write_text("days of work")
    (tmp_path / "linked").symlink_to(ours)
    monkeypatch.delattr(export.onnx.cli, "load_network")
    for given in (checkpoint, tmp_path / "linked" / place / checkpoint.name):
        result = CliRunner().invoke(export.onnx.cli.app, [str(given), *arguments[1:]])
        assert result.exit_code == 2
        assert f"error: {given} lies in {ours}" in result.stderr
        assert result.stderr.count("\n") == 1
    assert checkpoint.read_text() == "days of work"


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pt").write_text("no checkpoint")
    result = CliRunner().invoke(
        export.onnx.cli.app, [str(tmp_path / "ckpt.pt"), "-o", str(tmp_path / "bundle")]
    )
    assert result.exit_code == 2
    assert "not a readable checkpoint" in result.stderr


_STUCK = """
import runpy, time
import export.bundle_writer
def build(*_):
    print("building", flush=True)
    time.sleep(3600)
export.bundle_writer._build = build
runpy.run_module("export.onnx", run_name="__main__")
"""
"""The command, which does not get beyond the hidden folder that it has made."""


def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    config = load_config("scenes")
    network = build_network(config.model)
    state = {"config": config.model_dump(mode="json"), "model": network.state_dict()}
    save(tmp_path / "ckpt.pt", state)
    command = [sys.executable, "-c", _STUCK, str(tmp_path / "ckpt.pt"), "-o", str(tmp_path / "bundle")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        assert len(list(tmp_path.glob(".bundle-*"))) == 1
        process.terminate()
        assert process.wait(timeout=600) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.pt"]
