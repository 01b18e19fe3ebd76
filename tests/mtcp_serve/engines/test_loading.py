"""Engines are chosen by name: a new one is a module and an entry."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.loading import ENGINES, EngineClass, load_engine
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.errors import BundleError, BundleMismatchError
from mtcp_serve.kinds.base import Map
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, make_bundle, noise, put_weights_apart


class BlackEngine:
    """Sees nothing anywhere; an engine of somebody else's."""

    device = "nowhere"
    parallel = 1

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @classmethod
    def load(cls, bundle: Bundle, options: EngineOptions) -> Self:
        return cls(bundle.manifest)

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        return [np.zeros((*images.shape[:3], *task.channels), np.float32) for task in tasks]

    async def close(self) -> None:
        pass


def test_the_setting_chooses_the_engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "black", EngineClass(__name__, "BlackEngine", "nothing to install"))
    monkeypatch.setenv("MTCP_ENGINE", "black")
    (engine,) = load_engines(Settings(bundle=(bundle,)))
    assert isinstance(engine, BlackEngine)


def test_auto_is_the_first(bundle: Path) -> None:
    assert isinstance(load_engine(Bundle.open(bundle), options=EngineOptions(threads=1)), OnnxEngine)


def test_an_unknown_engine_is_refused_with_those_there_are(bundle: Path) -> None:
    with pytest.raises(BundleError, match="no engine 'abacus'; there is onnxruntime, tensorrt-rtx, openvino"):
        load_engine(Bundle.open(bundle), "abacus")


def test_what_an_engine_needs_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "lost", EngineClass("no_such_module", "Engine", "pip install it"))
    with pytest.raises(BundleError, match="No module named 'no_such_module'; pip install it"):
        load_engine(Bundle.open(bundle), "lost")


def test_a_changed_file_is_refused_whatever_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing hashes is not left to the engine: `BlackEngine` does not even look."""
    make_bundle(tmp_path)
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    monkeypatch.setitem(ENGINES, "black", EngineClass(__name__, "BlackEngine", "nothing to install"))
    for name in ("black", "onnxruntime"):
        with pytest.raises(BundleMismatchError, match=r"says model\.onnx has SHA-256 .*, but .* has"):
            load_engine(Bundle.open(tmp_path), name)


@pytest.mark.parametrize("location", ["model.onnx.data", "../weights.bin"])
def test_weights_that_nobody_hashes_are_refused_whatever_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    put_weights_apart(bundle, location, listed=False)
    monkeypatch.setitem(ENGINES, "black", EngineClass(__name__, "BlackEngine", "nothing to install"))
    for name in ("black", "onnxruntime"):
        with pytest.raises(BundleMismatchError, match=rf"model\.onnx reads weights from {location}, which"):
            load_engine(Bundle.open(bundle), name)


def test_weights_apart_are_hashed_like_the_graph(tmp_path: Path) -> None:
    weights = put_weights_apart(make_bundle(tmp_path), "weights.bin")
    engine = load_engine(Bundle.open(tmp_path), "onnxruntime", EngineOptions("cpu", threads=1))
    image = noise(HEIGHT, WIDTH)[None]
    (depth,) = asyncio.run(engine.infer(image, TASKS[1:2]))
    np.testing.assert_allclose(depth, image.mean(-1) / 25.5, rtol=1e-5)
    weights.write_bytes(np.float32(51).tobytes())
    with pytest.raises(BundleMismatchError, match=r"says weights\.bin has SHA-256"):
        load_engine(Bundle.open(tmp_path), "onnxruntime")
