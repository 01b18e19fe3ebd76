"""TensorRT for RTX itself: parser, network, config and builder, on a machine without a GPU."""

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import export.bundle_writer
import export.onnx.cli
import export.trt.cli as command
import export.trt.engine
from export.deployment_module import DeploymentGraph
from export.errors import ExportError, PlanError, PlanMismatchError
from export.onnx.convert import Converted
from export.onnx.nodes import typed_tensors
from export.triton.repository import write_repository
from export.trt.build import Built, Profile, build_plan
from export.trt.engine import fp16_share, precision_histogram
from export.trt.header import read_header
from export.trt.machine import Machine, RtxTargets
from export.trt.network import describe_layers, describe_tensors, logger, parse
from export.trt.plan import Sidecar, load_plan
from export.trt.steps import Settings, build, check, prepare
from export.trt.target import Target
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.errors import BundleError
from tests.export.fake_tensorrt import FakeTensorRT, needs_tensorrt, real_tensorrt
from tests.export.networks import HEIGHT, TASKS, WIDTH
from training.data import SourceConfig

pytestmark = needs_tensorrt
PROFILE = Profile(1, 2, 4)
SM80 = Target(("SM80",))


@pytest.fixture(scope="module")
def _prepared(bundle: Path, images: dict[str, RgbImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("rtx") / "tiny"))
    prepare(Bundle.open(folder), images, "gather")
    return folder


@pytest.fixture
def prepared(_prepared: Path, tmp_path: Path) -> Path:
    """A bundle that is ready for TensorRT, a copy that a test may spoil."""
    return Path(shutil.copytree(_prepared, tmp_path / "tiny"))


def built_by(trt: object, *capabilities: str) -> RtxTargets:
    return RtxTargets(tensorrt_rtx=trt.__version__, compute_capabilities=capabilities)  # type: ignore[attr-defined]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def build_tiny(prepared: Path, target: Target = SM80, profile: Profile = PROFILE) -> Built:
    opened = Bundle.open(prepared)
    return build_plan(
        real_tensorrt(),
        opened.graph("model_trt.onnx"),
        opened.manifest.input,
        profile,
        workspace_gib=1,
        timing_cache=None,
        target=target,
    )


@pytest.mark.parametrize("names", [("SM75",), ("SM89",), ("SM80", "SM86", "SM120", "SM121")], ids=str)
def test_a_plan_says_who_wrote_it_and_for_which_gpus(names: tuple[str, ...], prepared: Path) -> None:
    header = read_header(build_tiny(prepared, Target(names)).plan)
    assert header == (real_tensorrt().__version__, True, names)


@pytest.mark.parametrize("content", [b"", b"vtrt", b"PK" * 64])
def test_what_is_no_plan_has_no_header(content: bytes) -> None:
    assert read_header(content) is None


def test_the_network_keeps_the_types_of_the_graph(prepared: Path) -> None:
    """A node of the graph that gives FP16 is a layer that gives HALF, and the ends are the manifest's."""
    built = build_tiny(prepared)
    types = {layer["Name"]: {output["DataType"] for output in layer["Outputs"]} for layer in built.layers}
    model = onnx.load_model(prepared / "model_trt.onnx")
    fp16 = typed_tensors(model, TensorProto.FLOAT16)
    expected = {
        node.name: {"HALF" if node.output[0] in fp16 else "FLOAT"}
        for node in model.graph.node
        if node.op_type in ("Conv", "Relu", "Resize", "Sigmoid")
    }
    assert {"HALF"} in expected.values()
    assert {"FLOAT"} in expected.values()
    assert {name: types[name] for name in expected} == expected
    tensors = {tensor.name: (tensor.type, tensor.shape) for tensor in built.tensors}
    assert tensors["image"] == ("UINT8", (-1, HEIGHT, WIDTH, 3))
    assert tensors["semseg"] == ("UINT8", (-1, HEIGHT, WIDTH))
    assert tensors["normals"] == ("FLOAT", (-1, HEIGHT, WIDTH, 3))
    assert set(tensors) == {"image", *(task.name for task in TASKS)}
    assert 0 < fp16_share(precision_histogram(built.layers)) < 1


def test_a_plan_is_added_and_read_back_but_not_run(prepared: Path, images: dict[str, RgbImage]) -> None:
    trt, bundle = real_tensorrt(), Bundle.open(prepared)
    sidecar = build(bundle, images, Settings(PROFILE, fp16_threshold=0.2), trt, built_by(trt, "SM80"))
    bundle = Bundle.open(prepared).verify()
    assert {"model_rtx.plan", "model_rtx.plan.json", "model_rtx.plan.layers.json"} <= set(
        bundle.manifest.files
    )
    assert Sidecar.model_validate_json((prepared / "model_rtx.plan.json").read_bytes()) == sidecar
    assert sidecar.parity is None
    assert sidecar.target == SM80
    assert "tensorrt_rtx" not in bundle.parity()
    layers = json.loads((prepared / "model_rtx.plan.layers.json").read_text())
    assert sum(sidecar.layers.values()) == len(layers) > len(TASKS)


def build_guarded(bundle: Bundle, trt: FakeTensorRT) -> bytes:
    """A plan that the double can run; it has no compute capabilities, which are of TensorRT for RTX alone."""
    return build_plan(
        trt,
        bundle.graph("model_trt.onnx"),
        bundle.manifest.input,
        PROFILE,
        workspace_gib=None,
        timing_cache=None,
        target=Target(),
    ).plan


def exchange(bundle: Bundle, plan: bytes) -> None:
    """Put ``plan`` in the place of the bundle's, and its hash into the sidecar."""
    with bundle.edit() as draft:
        draft.add("model_rtx.plan").write_bytes(plan)
        path = draft.add("model_rtx.plan.json")
        report = json.loads(path.read_text())
        path.write_text(json.dumps({**report, "plan_sha256": hashlib.sha256(plan).hexdigest()}))


def test_on_a_gpu_the_check_finishes_it(
    prepared: Path, images: dict[str, RgbImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double runs what the builder of TensorRT for RTX has built, as its own runtime would on a GPU."""
    monkeypatch.setattr(export.trt.engine, "DEVICE", "cpu")
    bundle, trt = Bundle.open(prepared), FakeTensorRT("11.1")
    trt.__version__ = real_tensorrt().__version__
    settings = Settings(PROFILE, fp16_threshold=0.2)
    build(bundle, images, settings, real_tensorrt(), built_by(trt, "SM80", "SM89"))
    exchange(bundle, build_guarded(bundle, trt))
    here = Machine(
        tensorrt=trt.__version__, cuda="13.0", driver="580", gpu="NVIDIA L4", compute_capability="8.9"
    )
    target = Target(("SM80", "SM89"))
    results = check(bundle, images, settings, trt, here, target)
    assert set(results) == {"batch_1", "batch_2"}
    sidecar = Sidecar.model_validate_json((prepared / "model_rtx.plan.json").read_bytes())
    assert sidecar.parity is not None
    assert set(sidecar.parity["tasks"]["batch_2"]) == {task.name for task in TASKS}
    assert Bundle.open(prepared).verify().parity()["tensorrt_rtx"] == sidecar.parity
    elsewhere = here.model_copy(update={"compute_capability": "9.0", "gpu": "NVIDIA H100"})
    with pytest.raises(PlanMismatchError, match=r"SM80, SM89; this machine has .*NVIDIA H100 \(SM90\)"):
        check(bundle, images, settings, trt, elsewhere, target)


def test_an_unknown_capability_is_refused_with_those_that_are_known(prepared: Path) -> None:
    with pytest.raises(ExportError, match=r"does not build for SM90, only for SM75, SM80, .*--target here"):
        build_tiny(prepared, Target(("SM80", "SM90")))


@pytest.mark.parametrize("text", ["rtx", "rtx:", "rtx:80", "rtx:sm80,", "sm80", "", "cuda:sm80", "HERE"])
def test_targets_that_are_none(text: str) -> None:
    with pytest.raises(ExportError, match="is neither here nor rtx:"):
        Target.parse(text)


def test_a_target() -> None:
    assert Target.parse("here") == Target()
    assert Target.parse("rtx:sm80, SM89,sm80") == Target(("SM80", "SM89"))
    assert str(Target.parse("rtx:SM80,sm120")) == "rtx:sm80,sm120"
    assert str(Target()) == "here"


def test_a_timing_cache_is_refused(prepared: Path, tmp_path: Path) -> None:
    opened = Bundle.open(prepared)
    with pytest.raises(PlanError, match="keeps no timing cache"):
        build_plan(
            real_tensorrt(),
            opened.graph("model_trt.onnx"),
            opened.manifest.input,
            PROFILE,
            workspace_gib=None,
            timing_cache=tmp_path / "cache",
            target=SM80,
        )
    assert not (tmp_path / "cache").exists()


def test_a_profile_that_the_builder_refuses(prepared: Path) -> None:
    with pytest.raises(PlanError, match=r"refused the profile 4,2,1"):
        build_tiny(prepared, profile=Profile(4, 2, 1))


def test_a_graph_of_another_size_than_the_manifest_says_cannot_be_built(prepared: Path) -> None:
    opened = Bundle.open(prepared)
    size = opened.manifest.input.model_copy(update={"height": HEIGHT - 4})
    with pytest.raises(PlanError, match=r"cannot build .*model_trt\.onnx"):
        build_plan(
            real_tensorrt(),
            opened.graph("model_trt.onnx"),
            size,
            PROFILE,
            workspace_gib=None,
            timing_cache=None,
            target=SM80,
        )


def read(model: onnx.ModelProto | bytes, tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    trt = real_tensorrt()
    return describe_layers(parse(trt, trt.Builder(logger(trt)), path))


def one_node(node: onnx.NodeProto, kind: int, opset: int = 18) -> onnx.ModelProto:
    shape: list[str | int | None] = ["n", 3, 8, 8]
    info = helper.make_tensor_value_info
    inputs = [info("image", kind, shape), info("grid", TensorProto.FLOAT, ["n", 8, 8, 2])]
    used = [entry for entry in inputs if entry.name in node.input]
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [1])
    graph = helper.make_graph(
        [node], "one", used, [info("out", kind, None)], [axis] if "axis" in node.input else []
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("operator", ["Transpose", "Relu", "Flatten"])
def test_uint8_inside_a_graph_is_refused_with_the_node(operator: str, tmp_path: Path) -> None:
    node = helper.make_node(operator, ["image"], ["out"], name="inner")
    with pytest.raises(PlanError, match=rf"cannot read .*{operator} \(inner\): .*(?i:uint8)"):
        read(one_node(node, TensorProto.UINT8), tmp_path)


def test_an_operator_that_it_does_not_know_is_refused_with_the_node(tmp_path: Path) -> None:
    node = helper.make_node("Unknown", ["image"], ["out"], name="strange", domain="elsewhere")
    with pytest.raises(PlanError, match=r"Unknown \(strange\)"):
        read(one_node(node, TensorProto.FLOAT), tmp_path)


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Failed to parse the ONNX model"):
        read(b"no graph" * 9, tmp_path)


def test_a_plan_of_it_is_no_plan_for_triton(prepared: Path, tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(build_tiny(prepared).plan)
    with pytest.raises(ExportError, match=r"is a plan of TensorRT for RTX 1\..*--target here"):
        write_repository(
            Bundle.open(prepared), tmp_path / "repository", backend="tensorrt", plans={"8.0": plan}
        )
    assert not (tmp_path / "repository").exists()


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Writing more than ``size`` bytes into a file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_for_the_plan_the_bundle_is_as_it_was(
    prepared: Path, images: dict[str, RgbImage]
) -> None:
    trt, before = real_tensorrt(), contents(prepared)
    bundle = Bundle.open(prepared)
    with pytest.raises(BundleError, match="cannot be written"), no_file_beyond(1_000_000):
        build(bundle, images, Settings(PROFILE, fp16_threshold=0.2), trt, built_by(trt, "SM80"))
    assert contents(prepared) == before
    assert [path.name for path in prepared.parent.iterdir()] == ["tiny"]


def test_the_command_ends_with_a_plan_where_no_gpu_is(
    graph: DeploymentGraph,
    converted: Converted,
    images: dict[str, RgbImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = SimpleNamespace(
        name="tiny",
        tasks=graph.tasks,
        data=SimpleNamespace(height=HEIGHT, width=WIDTH, train=(SourceConfig(kind="scenes"),)),
    )
    monkeypatch.setattr(export.onnx.cli, "load_network", lambda path: (graph.network, config))
    monkeypatch.setattr(export.onnx.cli, "DeploymentGraph", lambda *_, refine: graph)
    monkeypatch.setattr(export.bundle_writer, "convert", lambda graph: converted)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    checkpoint = tmp_path / "ckpt.pt"
    checkpoint.touch()
    options = ["--target", "rtx:sm80", "--images", str(folder), "--fp16-threshold", "0.2"]
    result = CliRunner().invoke(command.app, [str(checkpoint), *options])
    assert result.exit_code == 0, result.output
    assert "TensorRT for RTX 1." in result.stdout
    assert (
        f"Still to do on one of these GPUs, which runs the plan and compares its maps: python -m "
        f"export.trt {tmp_path / 'ckpt'} --target rtx:sm80 --check" in result.stdout
    )
    Bundle.open(tmp_path / "ckpt").verify().graph("model_rtx.plan")
    assert not (tmp_path / "repository").exists()
    checked = CliRunner().invoke(command.app, [str(tmp_path / "ckpt"), *options, "--check"])
    assert checked.exit_code == 3
    assert "missing here: an NVIDIA GPU" in checked.stderr
    refused = CliRunner().invoke(command.app, [str(tmp_path / "ckpt"), "--target", "rtx:sm90"])
    assert refused.exit_code == 2
    assert "does not build for SM90" in refused.stderr


def test_a_plan_of_the_other_tensorrt_is_refused(prepared: Path, images: dict[str, RgbImage]) -> None:
    trt, bundle = real_tensorrt(), Bundle.open(prepared)
    build(bundle, images, Settings(PROFILE, fp16_threshold=0.2), trt, built_by(trt, "SM80"))
    exchange(bundle, build_guarded(bundle, FakeTensorRT("10.13")))
    here = Machine(
        tensorrt=trt.__version__, cuda="13", driver="580", gpu="NVIDIA A100", compute_capability="8.0"
    )
    with pytest.raises(PlanMismatchError, match=r"was built by TensorRT 10\.13\.3\.9; --target rtx:sm80"):
        load_plan(prepared, trt, here, SM80)


def test_the_tensors_of_a_network_are_described_in_order(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    node = helper.make_node("Relu", ["image"], ["out"], name="inner")
    path.write_bytes(one_node(node, TensorProto.FLOAT).SerializeToString())
    trt = real_tensorrt()
    tensors = describe_tensors(parse(trt, trt.Builder(logger(trt)), path))
    assert [(tensor.name, tensor.type, tensor.shape) for tensor in tensors] == [
        ("image", "FLOAT", (-1, 3, 8, 8)),
        ("out", "FLOAT", (-1, 3, 8, 8)),
    ]
    assert np.prod([axis for axis in tensors[0].shape if axis > 0]) == 192
