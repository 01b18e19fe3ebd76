"""``python -m export.trt``: all of it, with a double of the GPU; or all that needs none, and status 3."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import export.bundle_writer
import export.onnx.cli
import export.trt.cli as command
import export.trt.engine
from export.deployment_module import DeploymentGraph
from export.onnx.convert import Converted
from export.trt.machine import Machine
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle
from tests.export.fake_tensorrt import API, FakeTensorRT, needs_tensorrt
from tests.export.networks import HEIGHT, WIDTH
from training.data import SourceConfig

HERE = Machine(tensorrt="11.1.0.106", cuda="13.0", driver="580.1", gpu="NVIDIA L4", compute_capability="8.9")


@pytest.fixture
def ours(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    return Path(shutil.copytree(bundle, tmp_path / "tiny"))


@pytest.fixture
def folder(images: dict[str, RgbImage], tmp_path: Path) -> Path:
    """The images as files."""
    (tmp_path / "images").mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "missing", lambda *_, **__: ["TensorRT 10.13 or newer", "an NVIDIA GPU"])


@pytest.fixture(params=sorted(API))
def tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    trt = FakeTensorRT(request.param)
    monkeypatch.setattr(export.trt.engine, "DEVICE", "cpu")
    monkeypatch.setattr(command, "missing", lambda *_, **__: [])
    monkeypatch.setattr(command, "load_tensorrt", lambda _: trt)
    monkeypatch.setattr(command, "this_machine", lambda _: HERE)
    return trt


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("nothing_here")
def test_without_tensorrt_all_else_is_done_kept_and_not_done_again(ours: Path, folder: Path) -> None:
    first = run(ours, "--images", folder, "--profile", "1,2,4", "--deformable", "gridsample")
    assert first.exit_code == 3, first.output
    assert "missing here: TensorRT 10.13 or newer; an NVIDIA GPU" in first.stderr
    finish = first.stderr.splitlines()[-1]
    assert finish.startswith("docker run --rm --gpus all -v ")
    for part in (
        '"$TENSORRT_IMAGE"',
        f"{ours.parent}:/bundles",
        f"{folder}:/images",
        "python -m export.trt /bundles/tiny --target=here --profile=1,2,4 --deformable=gridsample",
        "--fp16-threshold=0.5",
        "--images=/images",
    ):
        assert part in finish, part
    manifest = Bundle.open(ours).verify().manifest
    assert {"model_fp16.onnx", "model_trt.onnx"} <= set(manifest.files)
    assert {"fp16", "tensorrt_graph"} <= set(json.loads((ours / "parity.json").read_text()))
    written = {path.name: path.stat().st_mtime_ns for path in ours.iterdir()}
    again = run(ours, "--images", folder, "--profile", "1,2,4", "--deformable", "gridsample")
    assert again.exit_code == 3
    assert {path.name: path.stat().st_mtime_ns for path in ours.iterdir()} == written
    run(ours, "--images", folder)
    report = json.loads((ours / "parity.json").read_text())["tensorrt_graph"]
    assert report["deformable"] == "gather"


@pytest.mark.usefixtures("nothing_here")
@pytest.mark.parametrize(
    ("target", "check", "for_triton"),
    [("here", False, True), ("here", True, False), ("rtx:sm89", False, False), ("rtx:sm89", True, False)],
)
def test_the_command_that_finishes_has_all_files_that_it_needs(
    target: str, check: bool, for_triton: bool, ours: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository only where a plan for Triton is made: what it is mounted from, Docker makes."""
    monkeypatch.setattr(command, "PROJECT", ours.parent)
    monkeypatch.setattr(command, "prepare", lambda *_: None)
    monkeypatch.setattr(command, "GRAPH_FILE", "model.onnx")
    monkeypatch.chdir(ours.parent)
    options = ["--timing-cache", "cache/l4", "--repository", "served", *(["--check"] if check else [])]
    result = run(ours, "--images", folder, "--target", target, *options)
    assert result.exit_code == 3, result.output
    assert ("is done and kept" in result.stderr) == (not check)
    words = shlex.split(result.stderr.splitlines()[-1])
    mounts = [words[index + 1] for index, word in enumerate(words) if word == "-v"]
    assert mounts == [
        f"{ours.parent}:/project",
        f"{ours.parent}:/bundles",
        *([f"{ours.parent}/served:/repository"] if for_triton else []),
        f"{ours.parent}/cache:/timings",
        f"{folder}:/images",
    ]
    inside = words[-1].split()
    assert "--timing-cache=/timings/l4" in inside
    assert ("--check" in inside, "--repository=/repository" in inside) == (check, for_triton)


@needs_tensorrt
def test_with_tensorrt_triton_gets_a_plan(tensorrt: FakeTensorRT, ours: Path, folder: Path) -> None:
    repository = ours.parent / "repository"
    result = run(
        ours, "--images", folder, "--profile", "1,2,4", "--fp16-threshold", 0.2, "--repository", repository
    )
    assert result.exit_code == 0, result.output
    assert "for Triton in" in result.stdout
    assert (repository / "tiny" / "1" / "model_sm89.plan").read_bytes() == (ours / "model.plan").read_bytes()
    assert "max_batch_size: 4" in (repository / "tiny" / "config.pbtxt").read_text()
    checked = run(ours, "--images", folder, "--profile", "1,2,4", "--check")
    assert checked.exit_code == 0, checked.output
    assert "agreement" in checked.stdout
    tensorrt.__version__ = "11.2.0.1"
    (ours / "model.plan").write_bytes(b"")
    refused = run(ours, "--images", folder, "--check")
    assert refused.exit_code == 2
    assert "describes a plan with SHA-256" in refused.stderr


@needs_tensorrt
def test_a_failed_step_is_status_1(tensorrt: FakeTensorRT, ours: Path, folder: Path) -> None:
    tensorrt._silently_float = True
    result = run(ours, "--images", folder, "--profile", "1,2,4", "--repository", ours.parent / "repository")
    assert result.exit_code == 1
    assert "0% of the plan's floating-point layers" in result.stderr
    assert not (ours / "model.plan").exists()
    assert not (ours.parent / "repository").exists()


@pytest.mark.usefixtures("nothing_here")
def test_a_checkpoint_becomes_a_bundle_first(
    graph: DeploymentGraph,
    converted: Converted,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = (SourceConfig(kind="scenes"),)
    config = SimpleNamespace(
        name="tiny",
        tasks=graph.tasks,
        data=SimpleNamespace(height=HEIGHT, width=WIDTH, train=sources),
    )
    monkeypatch.setattr(export.onnx.cli, "load_network", lambda path: (graph.network, config))
    monkeypatch.setattr(export.onnx.cli, "DeploymentGraph", lambda *_, refine: graph)
    monkeypatch.setattr(export.bundle_writer, "convert", lambda graph: converted)
    (tmp_path / "ckpt.pt").touch()
    for options, out in ((["-o", tmp_path / "out"], "out"), ([], "ckpt")):
        result = run(tmp_path / "ckpt.pt", *options, "--images", folder)
        assert result.exit_code == 3, result.output
        manifest = Bundle.open(tmp_path / out).verify().manifest
        assert {"model.onnx", "model_fp16.onnx", "model_trt.onnx"} <= set(manifest.files)


@pytest.mark.usefixtures("nothing_here")
def test_a_checkpoint_in_the_bundle_that_it_would_replace_is_refused(ours: Path, folder: Path) -> None:
    (ours / "model.safetensors").write_text("days of work")
    result = run(ours / "model.safetensors", "-o", ours, "--images", folder)
    assert result.exit_code == 2
    assert f"model.safetensors lies in {ours}, which the bundle would replace" in result.stderr
    assert (ours / "model.safetensors").read_text() == "days of work"


@pytest.mark.usefixtures("nothing_here")
def test_a_bundle_given_with_out_stays_as_it_is(ours: Path, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    out = ours.parent / "other"
    assert run(ours, "-o", out, "--images", folder).exit_code == 3
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before
    assert (out / "model_trt.onnx").is_file()
    refused = run(ours, "-o", out, "--images", folder)
    assert refused.exit_code == 2
    assert "exists; give it alone" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "4,2,1"], "is not MIN,OPT,MAX"),
        (["--ids", "{ours}/manifest.json", "--images", "{ours}"], "no image"),
    ],
)
def test_bad_input(arguments: list[str], message: str, ours: Path) -> None:
    result = run(ours, *(argument.format(ours=ours) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_folder_that_is_no_bundle_and_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 2
    checkpoint = tmp_path / "last.pt"
    checkpoint.write_bytes(b"")
    result = run(checkpoint)
    assert result.exit_code == 2
    assert "not a readable checkpoint" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
