"""The embedded engine: opens only what its manifest describes, and stops when told to."""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import DepthTask, FileEntry, Manifest, ProbabilityTask, TaskSpec
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine, open_session
from mtcp_serve.errors import BundleError, BundleMismatchError, BundleNotFoundError, ManifestError
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.support import GRAPH, HEIGHT, TASKS, WIDTH, make_bundle, noise

TYPES = """
<ir_version: 10, opset_import: ["": 18]>
types (uint8[batch, height, width, 3] image) => (
    float16[batch, height, width] depth, uint8[batch, height, width] saliency)
<int64[1] last = {3}>
{
    half = Cast <to = 10> (image)
    depth = ReduceMean <keepdims = 0> (half, last)
    saliency = Cast <to = 2> (depth)
}
"""


def test_maps_are_those_of_the_graph(bundle: Path) -> None:
    engine = OnnxEngine.load(Bundle.open(bundle), EngineOptions("cpu", threads=1))
    images = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(3)])
    semseg, depth, normals, saliency, parsing = asyncio.run(engine.infer(images, TASKS))
    mean = images.astype(np.float64).mean(-1)
    assert np.array_equal(semseg, (mean >= 85).astype(np.uint8) + (mean >= 170))
    assert np.allclose(depth, mean / 25.5, rtol=1e-5)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert np.allclose(saliency, images[..., 0] / 255)
    assert np.array_equal(parsing, images[..., 2] >= 128)
    assert [m.dtype for m in (semseg, depth, normals, saliency, parsing)] == [
        np.uint8, np.float32, np.float32, np.float32, np.uint8,
    ]  # fmt: skip


def test_only_the_tasks_asked_for_in_their_order(bundle: Path) -> None:
    engine = OnnxEngine.load(Bundle.open(bundle))
    images = noise(HEIGHT, WIDTH)[None]
    saliency, depth = asyncio.run(engine.infer(images, (TASKS[3], TASKS[1])))
    assert saliency.max() <= 1 < depth.max()
    assert engine.device == "cpu"


def test_confidences_are_asked_for_like_maps(tmp_path: Path) -> None:
    engine = OnnxEngine.load(Bundle.open(make_confident_bundle(tmp_path)))
    images = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(2)])
    semseg, depth = engine.manifest.confidences
    found = asyncio.run(engine.infer(images, (depth, TASKS[3], semseg)))
    wanted = expected_confidences(images)
    assert np.allclose(found[0], wanted["depth"], atol=1e-6)
    assert np.allclose(found[1], images[..., 0] / 255)
    assert np.allclose(found[2], wanted["semseg"], atol=1e-6)
    assert found[2].dtype == np.float32


def test_half_and_byte_outputs_come_as_float32(tmp_path: Path) -> None:
    tasks: tuple[TaskSpec, ...] = (
        DepthTask(name="depth", dtype="float16", range=(0, 255)),
        ProbabilityTask(name="saliency", dtype="uint8"),
    )
    engine = OnnxEngine.load(Bundle.open(make_bundle(tmp_path, TYPES, tasks)))
    images = np.full((1, HEIGHT, WIDTH, 3), 51, np.uint8)
    depth, saliency = asyncio.run(engine.infer(images, tasks))
    assert depth.dtype == saliency.dtype == np.dtype(np.float32)
    assert (float(depth[0, 0, 0]), float(saliency[0, 0, 0])) == pytest.approx((51, 0.2))


def test_cancelling_stops_the_inference(bundle: Path) -> None:
    engine = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
    stuck = np.broadcast_to(np.array([0, 255, 0], np.uint8), (1, HEIGHT, WIDTH, 3))

    async def scenario() -> None:
        task = asyncio.create_task(engine.infer(np.ascontiguousarray(stuck), TASKS))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())  # by itself it would never end


def computed_elsewhere(session: ort.InferenceSession, values: Any) -> tuple[float, float]:
    """Seconds that other threads of this process compute in an inference, and for a while after it."""
    start = time.process_time() - time.thread_time()
    session.run(None, values)
    end = time.process_time() - time.thread_time()
    time.sleep(0.05)
    return end - start, time.process_time() - time.thread_time() - end


def test_threads_that_have_nothing_to_do_sleep(tmp_path: Path) -> None:
    """Those that look for work take the cores of the thread that they wait for, and of encoders.

    All share the sigmoid; then one thread has some 40 ms for itself.
    """
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        narrow (float[n] x) => (float[n] shared, float[1] last)
        <int64 rounds = {20000}, bool yes = {1}, float[1] first = {1}>
        {
            shared = Sigmoid (x)
            last = Loop (rounds, yes, first) <body = step (int64 i, bool go, float[1] now) => (
                bool go_on, float[1] next) { go_on = Identity (go) next = Sin (now) }>
        }
    """)
    onnx.save(model, tmp_path / "narrow.onnx")
    session = open_session(tmp_path / "narrow.onnx", "cpu", threads=3)
    found = [computed_elsewhere(session, {"x": np.zeros(2**16, np.float32)}) for _ in range(6)]
    assert sum(within for within, _ in found) < 0.01  # by ONNX Runtime's defaults 0.06 to 0.3
    assert min(after for _, after in found) < 0.001  # likewise 0.02 and more


def test_a_missing_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=f"no bundle in {tmp_path}"):
        OnnxEngine.load(Bundle.open(tmp_path))
    if not DEFAULT_BUNDLE.exists():
        with pytest.raises(BundleNotFoundError, match="has no default bundle"):
            OnnxEngine.load(Bundle.open(DEFAULT_BUNDLE))


def test_a_graph_that_differs_from_its_manifest_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path, GRAPH, TASKS[:4])
    with pytest.raises(BundleMismatchError, match=r"manifest outputs are .*graph outputs are .*'parsing'"):
        OnnxEngine.load(Bundle.open(tmp_path))


def test_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    data = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(data | {"schema": 99}))
    with pytest.raises(ManifestError, match="has schema 99, but this mtcp-serve reads schema 1"):
        OnnxEngine.load(Bundle.open(tmp_path))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    manifest = Manifest.load(tmp_path)
    files = {"model.onnx": FileEntry.of(tmp_path / "model.onnx")}
    manifest.model_copy(update={"files": files}).save(tmp_path)
    with pytest.raises(BundleError, match="ONNX Runtime cannot open"):
        OnnxEngine.load(Bundle.open(tmp_path))


def test_a_provider_that_is_not_there_is_refused(bundle: Path) -> None:
    """Both builds are the same module: one installed beside the other may overwrite it, so it has to go."""
    hint = re.escape("pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mtcp-serve[gpu]'")
    with pytest.raises(BundleError, match=rf"cannot run on tensorrt, only on .*cpu; .*{hint}"):
        OnnxEngine.load(Bundle.open(bundle), EngineOptions("tensorrt"))


def test_what_an_installation_without_a_runtime_lacks_is_said(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway of Tritons needs no ONNX Runtime, one of bundles needs one of its builds."""
    monkeypatch.delitem(sys.modules, "mtcp_serve.engines.onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        BundleError, match=r"onnxruntime.* 'mtcp-serve\[cpu\]' .* 'mtcp-serve\[gpu\]' .* not both"
    ):
        load_engines(Settings(bundle=(bundle,)))


def test_a_provider_that_cannot_be_started(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with onnxruntime-gpu on a machine without CUDA: ``auto`` does without, ``cuda`` is refused."""
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        engine = OnnxEngine.load(Bundle.open(bundle))
    assert engine.device == "cpu"
    assert "running on the CPU" in caplog.text
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BundleError, match=r"could not be started .* --provider cpu"),
    ):
        OnnxEngine.load(Bundle.open(bundle), EngineOptions("cuda"))
