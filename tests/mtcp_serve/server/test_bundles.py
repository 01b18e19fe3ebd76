"""Several bundles at once: tasks merged, by a stated rule, and `model=` to choose."""

import asyncio
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest, ProbabilityTask, TaskSpec
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.errors import BundleError
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.registry import Models
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, make_bundle, noise

SMALL = """
<ir_version: 10, opset_import: ["": 18]>
small (uint8[batch, 12, 16, 3] image) => (float[batch, 12, 16] saliency, float[batch, 12, 16] edges)
<int64[1] last = {3}, float whole = {255}, float one = {1}>
{
    pixels = Cast <to = 1> (image)
    mean = ReduceMean <keepdims = 0> (pixels, last)
    saliency = Div (mean, whole)
    edges = Sub (one, saliency)
}
"""
TASKS: tuple[TaskSpec, ...] = (ProbabilityTask(name="saliency"), ProbabilityTask(name="edges"))


def rename(folder: Path, name: str, height: int, width: int) -> Path:
    manifest = Manifest.load(folder)
    size = manifest.input.model_copy(update={"height": height, "width": width})
    manifest.model_copy(update={"name": name, "input": size}).save(folder)
    return folder


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rename(make_bundle(tmp_path_factory.mktemp("second"), SMALL, TASKS), "small", 12, 16)


@pytest.fixture(scope="module")
def both(bundle: Path, second: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(bundle=(bundle, second), intra_op_threads=1))) as client:
        yield client


def post(client: TestClient, **query: str) -> Any:
    return client.post("/predict", params=query, content=GOOD, headers=PNG)


def test_tasks_are_merged_and_each_map_names_its_model(both: TestClient) -> None:
    answer = post(both).json()
    assert {name: entry["model"] for name, entry in answer["maps"].items()} == {
        "semseg": "tiny", "depth": "tiny", "normals": "tiny", "saliency": "tiny", "parsing": "tiny",
        "edges": "small",
    }  # fmt: skip
    assert answer["models"] == [
        {"name": "tiny", "version": "7", "width": WIDTH, "height": HEIGHT},
        {"name": "small", "version": "7", "width": 16, "height": 12},
    ]
    assert answer["maps"]["semseg"]["dataset"] == "steps"


def test_the_first_bundle_wins_and_model_chooses(both: TestClient) -> None:
    red = noise(HEIGHT, WIDTH)[..., 0] / 255
    with np.load(BytesIO(post(both, tasks="saliency", format="npz").content)) as first:
        assert np.allclose(first["saliency"], red, atol=1e-6)
    answer = post(both, tasks="saliency", model="small").json()
    assert answer["maps"]["saliency"]["model"] == "small"
    assert list(post(both, model="small").json()["maps"]) == ["saliency", "edges"]


def test_order_of_tasks_across_models(both: TestClient) -> None:
    assert list(post(both, tasks="edges,depth").json()["maps"]) == ["edges", "depth"]


def test_each_model_at_its_own_size(both: TestClient) -> None:
    maps = post(both, size="model").json()["maps"]
    assert (maps["edges"]["width"], maps["edges"]["height"]) == (16, 12)
    assert (maps["depth"]["width"], maps["depth"]["height"]) == (WIDTH, HEIGHT)


def test_unknown_names_list_what_there_is(both: TestClient) -> None:
    message = check_error(post(both, tasks="x"), 404, "unknown_task")["message"]
    assert (
        message == "tiny and small has no task 'x'; it has semseg, depth, normals, saliency, parsing, edges"
    )
    message = check_error(post(both, tasks="depth", model="small"), 404, "unknown_task")["message"]
    assert message == "small has no task 'depth'; it has saliency, edges"
    assert "there is tiny, small" in check_error(post(both, model="big"), 404, "unknown_model")["message"]


def test_models_says_who_answers_what(both: TestClient) -> None:
    answer = both.get("/models").json()
    assert [(model["name"], model["default"]) for model in answer["models"]] == [
        ("tiny", True), ("small", False),
    ]  # fmt: skip
    assert answer["tasks"]["saliency"] == "tiny"
    assert answer["tasks"]["edges"] == "small"


def test_two_bundles_of_one_name_are_refused(bundle: Path) -> None:
    with (
        pytest.raises(BundleError, match="two of the bundles are called 'tiny'"),
        TestClient(create_app(Settings(bundle=(bundle, bundle), intra_op_threads=1))),
    ):
        pass


def test_the_environment_names_several(bundle: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_BUNDLE", f"{bundle}{os.pathsep}{second}")
    assert Settings().bundle == (bundle, second)
    monkeypatch.setenv("MTCP_BUNDLE", str(second))
    assert Settings().bundle == (second,)


def test_models_stay_open_as_long_as_a_request_holds_on_to_them(bundle: Path) -> None:
    async def scenario() -> None:
        models = Models([Batcher(OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1)))])
        with models.lease():
            closing = asyncio.create_task(models.close())
            await asyncio.sleep(0.1)
            assert not closing.done()
        await closing

    asyncio.run(scenario())
