"""The engine OpenVINO: the maps of ONNX Runtime, in a cache that keeps precisions apart, and no telemetry."""

import asyncio
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.cli import cli
from mtcp_serve.engines import openvino
from mtcp_serve.engines.base import Engine, EngineOptions, Precision
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.engines.onnxruntime import OnnxEngine, threads_of_each
from mtcp_serve.engines.openvino import OpenVinoEngine, bf16_problem, compile_graph, difference
from mtcp_serve.errors import BundleError, BundleMismatchError
from mtcp_serve.kinds.base import Map
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.support import GRAPH, HEIGHT, TASKS, WIDTH, make_bundle, noise

ROOT = Path(__file__).parents[3]
needs_bf16 = pytest.mark.skipif(bf16_problem() is not None, reason="this processor has no bfloat16")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mtcp-serve" / "openvino"


def maps(engine: Engine, images: NDArray[np.uint8], tasks: tuple[TaskSpec, ...] = TASKS) -> list[Map]:
    return asyncio.run(engine.infer(images, tasks))


def test_float32_maps_are_those_of_onnx_runtime(bundle: Path) -> None:
    engine = load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="fp32", threads=1))
    assert (engine.device, engine.parallel) == ("openvino-fp32", 1)
    images = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(3)])
    wanted = maps(OnnxEngine.load(Bundle.open(bundle), EngineOptions("cpu")), images)
    for task, found, exact in zip(TASKS, maps(engine, images), wanted, strict=True):
        assert found.dtype == exact.dtype
        assert np.allclose(found, exact, atol=1e-5), task.name
    some = (TASKS[3], TASKS[1])
    for found, exact in zip(maps(engine, images, some), (wanted[3], wanted[1]), strict=True):
        assert np.allclose(found, exact, atol=1e-5)


def test_confidences_are_asked_for_like_maps(tmp_path: Path) -> None:
    folder = make_confident_bundle(tmp_path / "confident")
    engine = OpenVinoEngine.load(Bundle.open(folder), EngineOptions(threads=1, precision="fp32"))
    images = noise(HEIGHT, WIDTH)[None]
    semseg, depth = maps(engine, images, engine.manifest.confidences)
    wanted = expected_confidences(images)
    assert np.allclose(semseg, wanted["semseg"], atol=1e-5)
    assert np.allclose(depth, wanted["depth"], atol=1e-5)


def test_a_closed_engine_holds_no_model(bundle: Path) -> None:
    engine = OpenVinoEngine.load(Bundle.open(bundle), EngineOptions(precision="fp32", threads=1))
    model = weakref.ref(engine.sessions.alone)
    asyncio.run(engine.close())
    assert model() is None
    with pytest.raises(RuntimeError, match="the model is closed"):
        maps(engine, noise(HEIGHT, WIDTH)[None])


def test_the_shipped_model_is_within_the_bounds() -> None:
    """Both precisions one after the other, as with the cache OpenVINO would mix up; closer on an image."""
    bundle = Bundle.open(DEFAULT_BUNDLE)
    tasks, size = bundle.manifest.tasks, bundle.manifest.input
    with Image.open(ROOT / "docs" / "astronaut.jpg") as photo:
        image = np.asarray(photo.convert("RGB").resize((size.width, size.height)))[None]
    wanted = maps(OnnxEngine.load(bundle, EngineOptions("cpu")), image, tasks)
    precisions: tuple[Precision, ...] = ("fp32",) if bf16_problem() else ("fp32", "bf16")
    for precision in precisions:
        found = maps(OpenVinoEngine.load(bundle, EngineOptions(precision=precision)), image, tasks)
        for task, values, exact in zip(tasks, found, wanted, strict=True):
            assert difference(values, exact, precision) is None, (task.name, precision)
            if precision == "bf16" and exact.dtype == np.uint8:
                assert np.mean(values == exact) > 0.95, task.name
            elif precision == "bf16":
                assert np.abs(values - exact).mean() < 0.1 * max(exact.std(), 0.05), task.name
    if len(precisions) == 2:
        faults = [difference(values, exact, "fp32") for values, exact in zip(found, wanted, strict=True)]
        assert any(faults)  # it did compute in another precision


@needs_bf16
def test_auto_takes_bfloat16_and_keeps_it_apart_from_float32(bundle: Path, cache: Path) -> None:
    images = noise(HEIGHT, WIDTH)[None]
    exact = load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="fp32"))
    fast = load_engine(Bundle.open(bundle), "openvino")
    assert fast.device == "openvino-bf16"
    digest = Bundle.open(bundle).manifest.files["model.onnx"].sha256[:16]
    assert {path.relative_to(cache).parts[1:3] for path in cache.rglob("*.blob")} == {
        (digest, "fp32"),
        (digest, "bf16"),
    }
    first = maps(fast, images)[1]
    assert np.allclose(first, maps(exact, images)[1], rtol=0.02)
    again = load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="bf16"))  # out of the cache
    assert np.array_equal(maps(again, images)[1], first)


def test_another_graph_has_another_cache(bundle: Path, tmp_path: Path, cache: Path) -> None:
    other = make_bundle(tmp_path / "other", GRAPH.replace("per_metre = {25.5}", "per_metre = {51}"))
    fp32 = EngineOptions(precision="fp32")
    engines = [load_engine(Bundle.open(place), "openvino", fp32) for place in (bundle, other)]
    assert len(list(cache.glob("*/*/fp32"))) == 2
    images = noise(HEIGHT, WIDTH)[None]
    assert np.allclose(maps(engines[0], images)[1], 2 * maps(engines[1], images)[1], rtol=1e-5)


def test_a_compiled_model_of_other_maps_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the cache hands out the model of something else."""
    other = make_bundle(tmp_path / "other", GRAPH.replace("per_metre = {25.5}", "per_metre = {51}"))
    monkeypatch.setattr(
        openvino, "compile_graph", lambda path, *rest: compile_graph(other / "model.onnx", *rest)
    )
    with pytest.raises(BundleError, match=r"OpenVINO's depth in fp32 is not that of the graph.*openvino and"):
        load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="fp32"))


@needs_bf16
def test_auto_does_without_bfloat16_that_is_wrong(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_bundle(tmp_path / "other", GRAPH.replace("per_metre = {25.5}", "per_metre = {51}"))

    def wrong_in_bf16(path: Path, precision: Precision, *rest: Any) -> Any:
        return compile_graph(other / "model.onnx" if precision == "bf16" else path, precision, *rest)

    monkeypatch.setattr(openvino, "compile_graph", wrong_in_bf16)
    assert load_engine(Bundle.open(bundle), "openvino").device == "openvino-fp32"
    assert "depth in bf16 is not that of the graph" in caplog.text


def test_without_onnx_runtime_the_reference_is_a_float32_model(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mtcp_serve.engines.onnxruntime", None)
    engine = load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="fp32"))
    images = noise(HEIGHT, WIDTH)[None]
    assert np.allclose(maps(engine, images)[3], images[..., 0] / 255)


def test_bfloat16_is_refused_where_the_processor_lacks_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "CPUINFO", bundle / "manifest.json")  # a machine of other flags
    with pytest.raises(
        BundleError, match=r"no bfloat16 \(AMX or AVX512_BF16\); --precision fp32 does without"
    ):
        load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="bf16"))
    assert load_engine(Bundle.open(bundle), "openvino").device == "openvino-fp32"
    listed = json.loads(CliRunner().invoke(cli, ["engines", "--json"]).stdout)
    rows = {row["device"]: row["problem"] for row in listed if row["engine"] == "openvino"}
    assert rows["cpu"] is None
    assert "no bfloat16" in rows["cpu, bf16"]


def test_gpus_are_another_engine(bundle: Path) -> None:
    with pytest.raises(BundleError, match="--provider cuda is for the engine onnxruntime"):
        load_engine(Bundle.open(bundle), "openvino", EngineOptions("cuda"))


def test_the_others_do_not_take_bfloat16(bundle: Path) -> None:
    with pytest.raises(BundleError, match="--engine openvino has bf16"):
        load_engine(Bundle.open(bundle), "onnxruntime", EngineOptions(precision="bf16"))


def test_streams_are_inferences_at_a_time(bundle: Path) -> None:
    images = [noise(HEIGHT, WIDTH, seed)[None] for seed in range(8)]

    async def all_at_once(engine: Engine) -> list[list[Map]]:
        return await asyncio.gather(*(engine.infer(image, TASKS) for image in images))

    for name in ("openvino", "onnxruntime"):
        engine = load_engine(Bundle.open(bundle), name, EngineOptions(streams=2))
        assert engine.parallel == 2
        for image, found in zip(images, asyncio.run(all_at_once(engine)), strict=True):
            assert np.allclose(found[3], image[..., 0] / 255, atol=0.005)


def test_threads_are_shared_by_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [threads_of_each(0, streams) for streams in (0, 1, 2, 4, 20)] == [0, 0, 7, 5, 1]
    assert threads_of_each(3, 2) == 3


def test_a_cancelled_inference_leaves_the_engine_at_work(bundle: Path) -> None:
    engine = load_engine(Bundle.open(bundle), "openvino", EngineOptions(precision="fp32", threads=1))
    many = np.concatenate([noise(HEIGHT, WIDTH)[None]] * 2000)

    async def scenario() -> list[Map]:
        task = asyncio.create_task(engine.infer(many, TASKS))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.infer(many[:1], TASKS)

    assert np.allclose(asyncio.run(scenario())[3], many[:1, ..., 0] / 255)


@pytest.mark.parametrize("alone", [False, True], ids=["", "without ONNX Runtime"])
def test_a_graph_that_differs_from_its_manifest_is_refused(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an image of the manifest's size is given to it."""
    if alone:
        monkeypatch.setitem(sys.modules, "mtcp_serve.engines.onnxruntime", None)
    make_bundle(tmp_path / "four", GRAPH, TASKS[:4])
    with pytest.raises(BundleMismatchError, match=r"manifest outputs are .*graph outputs are .*parsing'"):
        load_engine(Bundle.open(tmp_path / "four"), "openvino", EngineOptions(precision="fp32"))
    bundle = Bundle.open(make_bundle(tmp_path / "other"))
    size = bundle.manifest.input.model_copy(update={"width": WIDTH + 2})
    bundle.manifest = bundle.manifest.model_copy(update={"input": size})
    with pytest.raises(BundleMismatchError, match=r"input 'image': manifest shape .* 34, 3\], graph shape"):
        load_engine(bundle, "openvino", EngineOptions(precision="fp32"))


def test_importing_it_sends_nothing_and_writes_nothing_home(tmp_path: Path) -> None:
    """OpenVINO itself leaves a number for Google Analytics in the home folder when it is imported."""
    code = "import mtcp_serve.engines.openvino, sys; print('openvino_telemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
    assert not (tmp_path / "home").exists()
