"""Plans of this machine's TensorRT: a real builder behind the names of both versions, a double that runs."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from pydantic import ValidationError

import export.trt.engine
import export.trt.machine
import tests.export.fake_tensorrt
from export.errors import ExportError, MachineError, ParityError, PlanError, PlanMismatchError
from export.fp16.mixed import to_mixed_precision
from export.fp16.ranges import open_session
from export.onnx.convert import Converted
from export.onnx.nodes import typed_tensors
from export.trt.build import Profile, build_plan
from export.trt.engine import Engine, fp16_share, layer_precision, precision_histogram
from export.trt.graph import Deformable, for_tensorrt
from export.trt.machine import Machine, missing, this_machine
from export.trt.plan import Sidecar, load_plan
from export.trt.steps import Settings, build, prepare
from export.trt.target import Target
from export.validation_images import RgbImage
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.errors import BundleMismatchError
from tests.export.fake_tensorrt import API, FakeTensorRT, needs_tensorrt
from tests.export.networks import HEIGHT, TASKS, WIDTH

HERE = Machine(tensorrt="10.13.3.9", cuda="12.9", driver="575.1", gpu="NVIDIA L4", compute_capability="8.9")
PROFILE = Profile(1, 3, 4)
BOTH = pytest.mark.parametrize("version", sorted(API))
THIS = Target()
pytestmark = needs_tensorrt


@pytest.fixture(autouse=True)
def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.trt.engine, "DEVICE", "cpu")


@pytest.fixture(scope="session")
def _prepared(bundle: Path, images: dict[str, RgbImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("trt") / "tiny"))
    prepare(Bundle.open(folder), images, "gather")
    return folder


@pytest.fixture
def prepared(_prepared: Path, tmp_path: Path) -> Path:
    """A bundle that is ready for TensorRT, a copy that a test may spoil."""
    return Path(shutil.copytree(_prepared, tmp_path / "tiny"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@BOTH
def test_a_plan_is_built_read_back_compared_and_described(
    version: str, prepared: Path, images: dict[str, RgbImage], tmp_path: Path
) -> None:
    trt, cache = FakeTensorRT(version), tmp_path / "timing.cache"
    sidecar = build(Bundle.open(prepared), images, Settings(PROFILE, 2.5, cache, 0.2), trt, HERE)
    manifest = Bundle.open(prepared).verify().manifest
    assert {"model.plan", "model.plan.json", "model.plan.layers.json"} <= set(manifest.files)
    assert Sidecar.model_validate_json((prepared / "model.plan.json").read_bytes()) == sidecar
    assert sidecar.onnx_sha256 == manifest.files["model_trt.onnx"].sha256
    assert sidecar.plan_sha256 == manifest.files["model.plan"].sha256
    assert (sidecar.built_for, sidecar.profile, sidecar.deformable) == (HERE, PROFILE, "gather")
    assert (
        0.2
        <= sidecar.fp16_share
        == sidecar.layers["fp16"] / (sidecar.layers["fp16"] + sidecar.layers["fp32"])
    )
    layers = json.loads((prepared / "model.plan.layers.json").read_text())
    assert len(layers) == sum(sidecar.layers.values())
    assert sidecar.parity is not None
    assert set(sidecar.parity["tasks"]) == {"batch_1", "batch_3"}
    assert set(sidecar.parity["tasks"]["batch_3"]) == {task.name for task in TASKS}
    assert json.loads((prepared / "parity.json").read_text())["tensorrt"] == sidecar.parity
    assert cache.read_bytes().startswith(trt.__version__.encode())
    (config,) = trt._configs
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == int(2.5 * 2**30)


@BOTH
def test_the_double_refuses_what_the_api_does_not_have(version: str) -> None:
    trt = FakeTensorRT(version)
    for name in ("Builder", "DataType"):
        assert getattr(trt, name)
    with pytest.raises(AttributeError, match="has no IInt8Calibrator"):
        _ = trt.IInt8Calibrator
    with pytest.raises(AttributeError, match=r"has no Builder\.build_cuda_engine"):
        trt.Builder(trt.Logger()).build_cuda_engine  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no IBuilderConfig\.max_workspace_size"):
        trt.Builder(trt.Logger()).create_builder_config().max_workspace_size = 1
    assert ("FP16" in API[version]["BuilderFlag"]) == (version == "10.13")


@BOTH
def test_an_engine_that_is_float32_in_secret_is_refused(
    version: str, prepared: Path, images: dict[str, RgbImage]
) -> None:
    before = contents(prepared)
    with pytest.raises(PlanError, match=r"^0% of the plan's floating-point layers .* at least 30% must be"):
        build(
            Bundle.open(prepared),
            images,
            Settings(PROFILE, fp16_threshold=0.3),
            FakeTensorRT(version, silently_float=True),
            HERE,
        )
    assert contents(prepared) == before


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_an_engine_with_wrong_maps_is_refused_by_task(
    task: str, prepared: Path, images: dict[str, RgbImage]
) -> None:
    before = contents(prepared)
    with pytest.raises(ParityError, match=r"the plan does not reproduce model\.onnx") as caught:
        build(
            Bundle.open(prepared),
            images,
            Settings(PROFILE, fp16_threshold=0),
            FakeTensorRT("11.1", spoils=task),
            HERE,
        )
    assert list(caught.value.faults) == [task]
    assert contents(prepared) == before


def test_what_tensorrt_says_of_a_graph_reaches_the_caller(prepared: Path) -> None:
    with pytest.raises(
        PlanError, match=r"TensorRT 10\.13\.3\.9 cannot read .*Transpose \(/Transpose_\d+\): .*UInt8"
    ):
        build_plan(
            FakeTensorRT("10.13"),
            prepared / "model_fp16.onnx",
            Manifest.load(prepared).input,
            PROFILE,
            workspace_gib=None,
            timing_cache=None,
            target=THIS,
        )


def test_a_timing_cache_of_another_tensorrt_is_refused(prepared: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    image = Manifest.load(prepared).input

    def make(version: str) -> bytes:
        return build_plan(
            FakeTensorRT(version),
            prepared / "model_trt.onnx",
            image,
            PROFILE,
            workspace_gib=None,
            timing_cache=cache,
            target=THIS,
        ).plan

    make("10.13")
    once = cache.read_bytes()
    make("10.13")
    assert len(cache.read_bytes()) > len(once)
    with pytest.raises(PlanError, match=r"timing\.cache was written by another TensorRT"):
        make("11.1")


def test_a_timing_cache_that_cannot_be_written_is_as_it_was(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timings").mkdir()
    cache = tmp_path / "timings" / "timing.cache"
    graph, image = prepared / "model_trt.onnx", Manifest.load(prepared).input

    def make() -> None:
        trt = FakeTensorRT("11.1")
        build_plan(trt, graph, image, PROFILE, workspace_gib=None, timing_cache=cache, target=THIS)

    make()
    before = cache.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PlanError, match=r"timing\.cache cannot be written: .*No space left on device"):
        make()
    assert cache.read_bytes() == before
    assert list(cache.parent.iterdir()) == [cache]


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        ("timing.cache", b"what an interrupted build wrote", r"timing\.cache is not a timing cache"),
        ("missing/timing.cache", None, r"missing/timing\.cache cannot be read and written: .*No such file"),
        ("", None, "cannot be read and written: .*Is a directory"),
    ],
)
def test_a_timing_cache_that_cannot_be_used_is_refused_before_the_build(
    place: str,
    content: bytes | None,
    message: str,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trt, cache = FakeTensorRT("11.1"), tmp_path / place
    if content is not None:
        cache.write_bytes(content)

    def too_late(*_: object) -> None:
        raise AssertionError("the build takes many minutes")

    monkeypatch.setitem(
        tests.export.fake_tensorrt._OVERRIDES, ("Builder", "build_serialized_network"), too_late
    )
    with pytest.raises(PlanError, match=message):
        build_plan(
            trt,
            prepared / "model_trt.onnx",
            Manifest.load(prepared).input,
            PROFILE,
            workspace_gib=None,
            timing_cache=cache,
            target=THIS,
        )


@BOTH
def test_what_is_kept_in_fp32_is_fp32_on_tensor_cores_too(version: str, prepared: Path) -> None:
    trt = FakeTensorRT(version)
    build_plan(
        trt,
        prepared / "model_trt.onnx",
        Manifest.load(prepared).input,
        PROFILE,
        workspace_gib=None,
        timing_cache=None,
        target=THIS,
    )
    (config,) = trt._configs
    assert not config.get_flag(trt.BuilderFlag.TF32)


@pytest.fixture(scope="module")
def built(_prepared: Path, images: dict[str, RgbImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(_prepared, tmp_path_factory.mktemp("built") / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.trt.engine, "DEVICE", "cpu")
        build(Bundle.open(folder), images, Settings(PROFILE, fp16_threshold=0), FakeTensorRT("10.13"), HERE)
    return folder


def test_a_plan_runs_where_it_was_built(built: Path, images: dict[str, RgbImage]) -> None:
    updated = HERE.model_copy(update={"driver": "580.2", "cuda": "13.0"})
    engine, _ = load_plan(built, FakeTensorRT("10.13"), updated, THIS)
    stack = np.stack(list(images.values()))
    maps = engine.run(stack)
    assert maps["normals"].shape == (4, HEIGHT, WIDTH, 3)
    assert maps["semseg"].dtype == np.uint8
    reference = open_session(onnx.load_model(built / "model.onnx")).run(["depth"], {"image": stack})[0]
    np.testing.assert_allclose(maps["depth"], reference, rtol=1e-2)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("tensorrt", "11.1.0.106"), ("gpu", "NVIDIA H100 PCIe"), ("compute_capability", "9.0")],
)
def test_a_plan_of_another_machine_is_refused_with_both_sides_named(
    fact: str, value: str, built: Path
) -> None:
    elsewhere = HERE.model_copy(update={fact: value})
    with pytest.raises(PlanMismatchError) as caught:
        load_plan(built, FakeTensorRT("10.13"), elsewhere, THIS)
    assert HERE.describe() in str(caught.value)
    assert elsewhere.describe() in str(caught.value)
    assert value in str(caught.value)


def test_a_plan_that_is_not_the_sidecars_is_refused(built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "copy"))
    (folder / "model.plan").write_bytes(b"another")
    with pytest.raises(BundleMismatchError, match="describes a plan with SHA-256"):
        load_plan(folder, FakeTensorRT("10.13"), HERE, THIS)
    (folder / "model.plan.json").unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(folder, FakeTensorRT("10.13"), HERE, THIS)


def test_an_engine_says_what_it_does_not_take(built: Path) -> None:
    engine, _ = load_plan(built, FakeTensorRT("10.13"), HERE, THIS)
    with pytest.raises(PlanError, match=rf"does not take images of shape \[5, {HEIGHT}, {WIDTH}, 3\]"):
        engine.run(np.zeros((5, HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(PlanError, match="cannot load the plan"):
        Engine(FakeTensorRT("10.13"), b"no plan")


@pytest.mark.parametrize(
    ("outputs", "precision"),
    [
        ([{"Name": "Float", "Format/Datatype": "Half"}], "fp16"),
        ([{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}], "fp16"),
        ([{"DataType": "Half", "Format": "Row major linear FP16 format (kLINEAR)"}], "fp16"),
        ([{"Format/Datatype": "Row major linear FP32"}], "fp32"),
        ([{"DataType": "Float", "Format": "Row major linear FP32 format (kLINEAR)"}], "fp32"),
        ([{"Format/Datatype": "Half"}, {"Format/Datatype": "Float"}], "fp32"),
        ([{"Format/Datatype": "Int32"}], "other"),
        ([{"Format/Datatype": "BFloat16"}], "other"),
        ([{"Format/Datatype": "N/A due to dynamic shapes"}], "other"),
        ([], "other"),
    ],
)
def test_precision_in_the_words_of_both_inspectors(outputs: list[dict[str, str]], precision: str) -> None:
    assert layer_precision({"Name": "layer", "LayerType": "kgen", "Outputs": outputs}) == precision
    assert layer_precision({"Name": "layer", "LayerType": "Reformat", "Outputs": outputs}) == "other"


def test_the_share_is_of_floating_point_layers() -> None:
    layers = [{"Outputs": [{"DataType": kind}]} for kind in ("Half", "Half", "Half", "Float", "Int64")]
    assert fp16_share(precision_histogram(layers)) == 0.75
    assert fp16_share(precision_histogram(layers[4:])) == 0


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "0,1,2", "4,2,8", "1,8,4", "a,b,c", ""])
def test_profiles_that_are_none(text: str) -> None:
    with pytest.raises(ExportError, match="is not MIN,OPT,MAX"):
        Profile.parse(text)


def test_a_profile() -> None:
    assert Profile.parse("1,4,8") == (1, 4, 8)


@pytest.fixture(scope="module")
def mixed(deployed: Converted) -> onnx.ModelProto:
    return to_mixed_precision(deployed.model, {}).model


@pytest.mark.parametrize("deformable", ["gather", "gridsample"])
def test_the_graph_for_tensorrt_gives_the_same_maps(
    deformable: Deformable, deployed: Converted, images: dict[str, RgbImage]
) -> None:
    prepared = for_tensorrt(deployed.model, deformable)
    before, after = (
        Counter(node.op_type for node in model.graph.node) for model in (deployed.model, prepared)
    )
    assert after["GridSample"] == (before["GridSample"] if deformable == "gridsample" else 0)
    assert (after["GatherElements"] > before["GatherElements"]) == (deformable == "gather")
    image = {"image": np.stack(list(images.values()))}
    (labels, depth), (wanted_labels, wanted_depth) = (
        open_session(model).run(["semseg", "depth"], image) for model in (prepared, deployed.model)
    )
    assert labels.dtype == wanted_labels.dtype == np.uint8
    assert (labels == wanted_labels).mean() > 0.9995
    np.testing.assert_allclose(depth, wanted_depth, rtol=1e-4)


def test_small_integers_are_at_the_ends_alone(mixed: onnx.ModelProto) -> None:
    prepared = for_tensorrt(mixed, "gather")
    small = typed_tensors(prepared, TensorProto.UINT8)
    assert small == {"semseg"}
    floating = typed_tensors(prepared, TensorProto.FLOAT)
    for node in prepared.graph.node:
        if "image" in node.input or "semseg" in node.output:
            assert node.op_type == "Cast"
            assert not floating.isdisjoint([*node.input, *node.output])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("CumSum", ["depth", "depth"], ["sums"], name="positions"), r"CumSum \(positions\)"),
        (
            helper.make_node("GridSample", ["depth", "depth"], ["sampled"], name="deform", mode="linear"),
            r"mode linear \(deform\)",
        ),
    ],
    ids=["CumSum", "linear"],
)
def test_operators_that_tensorrt_misreads_do_not_reach_it(
    node: onnx.NodeProto, message: str, mixed: onnx.ModelProto
) -> None:
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(mixed)
    spoiled.graph.node.append(node)
    with pytest.raises(ExportError, match=message):
        for_tensorrt(spoiled, "gridsample")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: Target) -> None:
        raise ImportError

    monkeypatch.setattr(export.trt.machine, "load_tensorrt", absent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [lack.split(" (")[0] for lack in missing(THIS, running=False)] == [
        "TensorRT 10.13 or newer",
        "an NVIDIA GPU and a PyTorch that was built for it",
    ]
    trt = FakeTensorRT("10.13")
    monkeypatch.setattr(export.trt.machine, "load_tensorrt", lambda _: trt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert missing(THIS, running=True) == []
    trt.__version__ = "10.9.0.34"
    assert missing(THIS, running=False) == ["TensorRT 10.13 or newer (here is 10.9.0.34)"]


def test_the_facts_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, major, minor = "NVIDIA L4", 8, 9

    answer = subprocess.CompletedProcess[str]([], 0, stdout="575.1\n575.1\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    assert this_machine(FakeTensorRT("10.13")) == HERE

    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(MachineError, match=r"nvidia-smi.* cannot be run .*compute,utility"):
        this_machine(FakeTensorRT("10.13"))


def test_a_sidecar_with_unknown_keys_is_refused(built: Path) -> None:
    content = json.loads((built / "model.plan.json").read_text())
    with pytest.raises(ValidationError):
        Sidecar.model_validate({**content, "color": "blue"})
