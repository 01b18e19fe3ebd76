"""The engine for RTX-class GPUs: it says why it cannot run here, and what it would ask of the plug-in."""

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.cli import cli
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.loading import ENGINES, EngineClass, load_engine
from mtcp_serve.engines.onnxruntime import OnnxEngine, nodes_by_provider, warn_of_fallbacks
from mtcp_serve.errors import BundleError
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, noise

PLUGIN = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
needs_plugin = pytest.mark.skipif(PLUGIN is None, reason="no plug-in for RTX: x86-64 Linux and Windows alone")


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The engine with ONNX Runtime's CPU in the place of the GPU; the options that the plug-in would get."""
    from mtcp_serve.engines import tensorrt_rtx

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    devices = [device for device in ort.get_ep_devices() if device.ep_name == "CPUExecutionProvider"]
    monkeypatch.setattr(tensorrt_rtx, "_devices", lambda name: devices)
    asked: dict[str, str] = {}

    class Options(ort.SessionOptions):  # type: ignore[misc]
        def add_provider_for_devices(self, devices: Any, options: dict[str, str]) -> None:
            asked.update(options)
            super().add_provider_for_devices(devices, {})

    monkeypatch.setattr(ort, "SessionOptions", Options)
    return asked


@needs_plugin
def test_without_a_gpu_it_is_refused_and_says_what_is_missing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtcp_serve.engines import tensorrt_rtx

    monkeypatch.setattr(tensorrt_rtx, "_devices", lambda name: [])  # where a GPU is, as if none were

    def absent(*_: object) -> None:
        raise RuntimeError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ort, "register_execution_provider_library", absent)
    with pytest.raises(BundleError, match=r"needs an RTX-class NVIDIA GPU .* driver: libcuda\.so\.1"):
        load_engine(Bundle.open(bundle), "tensorrt-rtx")
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda *_: None)
    with pytest.raises(BundleError, match="no GPU here that TensorRT for RTX runs on"):
        load_engine(Bundle.open(bundle), "tensorrt-rtx")


@needs_plugin
def test_the_cpu_is_another_engine(bundle: Path) -> None:
    with pytest.raises(BundleError, match="--provider cpu is for the engine onnxruntime"):
        load_engine(Bundle.open(bundle), "tensorrt-rtx", EngineOptions("cpu"))


@needs_plugin
def test_batches_and_the_cache_are_asked_of_the_plugin(
    bundle: Path, on_the_cpu: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load_engine(Bundle.open(bundle), "tensorrt-rtx")
    folder = tmp_path / "cache" / "mtcp-serve" / "tensorrt-rtx"
    assert on_the_cpu == {
        "nv_profile_min_shapes": f"image:1x{HEIGHT}x{WIDTH}x3",
        "nv_profile_opt_shapes": f"image:1x{HEIGHT}x{WIDTH}x3",
        "nv_profile_max_shapes": f"image:8x{HEIGHT}x{WIDTH}x3",
        "nv_runtime_cache_path": str(folder),
    }
    assert folder.is_dir()
    assert "python -m export.trt adds it" in caplog.text
    assert "nodes run on the CPU, not on tensorrt-rtx: " in caplog.text  # here all do
    images = noise(HEIGHT, WIDTH)[None]
    expected = asyncio.run(OnnxEngine.load(Bundle.open(bundle)).infer(images, TASKS))
    for found, wanted in zip(asyncio.run(engine.infer(images, TASKS)), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert engine.device == "tensorrt-rtx"


@needs_plugin
def test_a_cache_that_cannot_be_written_costs_only_time(
    bundle: Path, on_the_cpu: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("no folder")
    load_engine(Bundle.open(bundle), "tensorrt-rtx")
    assert "nv_runtime_cache_path" not in on_the_cpu
    assert "every start compiles again" in caplog.text


def test_the_command_lists_engines_and_why_they_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "lost", EngineClass("no_such_module", "Engine", "pip install it"))
    listed = CliRunner().invoke(cli, ["engines", "--json"])
    assert listed.exit_code == 0, listed.output
    rows = {(row["engine"], row["device"]): row for row in json.loads(listed.stdout)}
    assert rows["onnxruntime", "cpu"] == {
        "engine": "onnxruntime", "device": "cpu", "available": True, "problem": None,
        "measured": "what the others are compared with",
    }  # fmt: skip
    assert rows["lost", ""]["problem"] == "No module named 'no_such_module'; pip install it"
    built = "CUDAExecutionProvider" in ort.get_available_providers()
    assert rows["onnxruntime", "cuda"]["available"] == built
    table = CliRunner().invoke(cli, ["engines"])
    said = " ".join(table.stdout.split())
    assert "pip install it" in said
    assert "measured: onnxruntime: what the others are compared with" in said
    assert "openvino: two cores of an AMD EPYC" in said


def test_nodes_that_fall_back_to_the_cpu_are_counted_and_named(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A session on the CPU stands for one on a GPU all of whose nodes have fallen back."""
    session = OnnxEngine.load(Bundle.open(bundle), EngineOptions("cpu")).sessions.alone
    found = nodes_by_provider(session)
    assert set(found) == {"CPUExecutionProvider"}
    count = found["CPUExecutionProvider"].total()
    assert count > 8
    warn_of_fallbacks(session, "cpu")
    assert not caplog.records
    warn_of_fallbacks(session, "cuda")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{count} of {count} nodes run on the CPU, not on cuda: " in record.getMessage()
    operator, times = found["CPUExecutionProvider"].most_common(1)[0]
    assert f"{operator} {times}" in record.getMessage()
