"""The Triton engine against real Tritons: same maps, and no accepted request lost when one of them dies."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient
from tritonclient.grpc import InferenceServerClient

import mtcp_serve.engines.triton
from export.triton import Serving, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.onnxruntime import OnnxEngine
from mtcp_serve.engines.triton import TritonEngine
from mtcp_serve.errors import BundleError, EngineLostError
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.process import CLEAN, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.server.test_faults import load, statuses
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH, noise
from tests.needs import needs_triton

pytestmark = needs_triton
NOWHERE = "127.0.0.1:1"


@pytest.fixture(scope="module")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_repository(Bundle.open(bundle), folder, backend="python", serving=Serving(threads=1))
    return folder


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[LocalTriton]:
    with LocalTriton(repository) as server:
        yield server


def post(client: TestClient, query: str = "format=npz") -> Any:
    return client.post(f"/predict?{query}", content=GOOD, headers=PNG)


def test_same_maps_as_the_embedded_engine(triton: LocalTriton, bundle: Path) -> None:
    (engine,) = TritonEngine.load([triton.grpc])
    embedded = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
    assert engine.manifest == embedded.manifest
    images = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(3)])
    tasks = (TASKS[1], TASKS[0], TASKS[4], TASKS[2], TASKS[3])

    async def both() -> Any:
        try:
            return await engine.infer(images, tasks), await embedded.infer(images, tasks)
        finally:
            await engine.close()

    for ours, theirs in zip(*asyncio.run(both()), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.allclose(ours, theirs, atol=1e-6)


def test_confidences_come_at_their_own_size(tmp_path: Path) -> None:
    bundle = Bundle.open(make_confident_bundle(tmp_path / "tiny"))
    write_repository(bundle, tmp_path / "repository", backend="python", serving=Serving(threads=1))
    images = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(2)])

    async def ask(engine: TritonEngine) -> Any:
        try:
            return await engine.infer(images, (TASKS[3], *engine.manifest.confidences))
        finally:
            await engine.close()

    with LocalTriton(tmp_path / "repository") as server:
        (engine,) = TritonEngine.load([server.grpc])
        saliency, semseg, depth = asyncio.run(ask(engine))
    wanted = expected_confidences(images)
    assert np.allclose(saliency, images[..., 0] / 255)
    assert np.allclose(semseg, wanted["semseg"], atol=1e-6)
    assert np.allclose(depth, wanted["depth"], atol=1e-6)


def test_served_over_http(triton: LocalTriton) -> None:
    with TestClient(create_app(Settings(triton=(NOWHERE, triton.grpc)))) as client:
        with np.load(BytesIO(post(client).content)) as maps:
            assert np.allclose(maps["saliency"], noise(HEIGHT, WIDTH)[..., 0] / 255, atol=1e-6)
        (model,) = client.get("/models").json()["models"]
        assert (model["name"], model["device"]) == ("tiny", "triton")


def test_a_dead_triton_costs_no_request_and_comes_back(triton: LocalTriton, repository: Path) -> None:
    second = LocalTriton(repository, grpc_port=free_port())
    settings = Settings(triton=(second.grpc, triton.grpc), concurrency=4, max_batch_size=1)
    try:
        with TestClient(create_app(settings)) as client, ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(post, client) for _ in range(40)]
            until(lambda: sum(call.done() for call in calls) > 10)
            second.kill()
            assert {call.result().status_code for call in calls} == {200}
            second = LocalTriton(repository, grpc_port=second.grpc_port)
            engine = client.app.state.service.models["tiny"].engine  # type: ignore[attr-defined]
            until(lambda: all(endpoint.up for endpoint in engine._endpoints))
            assert {post(client).status_code for _ in range(4)} == {200}
    finally:
        second.stop()


def test_all_lost_is_503_until_one_is_back(repository: Path) -> None:
    only = LocalTriton(repository, grpc_port=free_port())
    try:
        with TestClient(create_app(Settings(triton=(only.grpc,)))) as client:
            assert post(client).status_code == 200
            only.kill()
            response = post(client)
            check_error(response, 503, "engine_lost")
            assert response.headers["retry-after"] == "1"
            only = LocalTriton(repository, grpc_port=only.grpc_port)
            until(lambda: post(client).status_code == 200)
    finally:
        only.stop()


def test_a_version_that_triton_replaced_is_not_said_to_be_back(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the model is ready; the one that the gateway asks for is not."""
    monkeypatch.setattr(mtcp_serve.engines.triton, "_PROBE_S", 0.05)
    serving = Serving(threads=1, latest=1)

    def write(version: int) -> None:
        write_repository(
            Bundle.open(bundle), tmp_path / "repository", backend="python", version=version, serving=serving
        )

    async def ask(engine: TritonEngine) -> None:
        with pytest.raises(EngineLostError, match="with version 1 of tiny"):
            await engine.infer(noise(HEIGHT, WIDTH)[None], TASKS)
        (endpoint,) = engine._endpoints
        ready, found = endpoint.client.is_model_ready, asyncio.Queue[bool]()

        async def watched(*asked: Any, **options: Any) -> bool:
            said = bool(await ready(*asked, **options))
            found.put_nowait(said)
            return said

        endpoint.client.is_model_ready = watched
        assert [await found.get() for _ in range(2)] == [False, False]
        assert not endpoint.up
        await engine.close()

    write(1)
    with LocalTriton(tmp_path / "repository") as server:
        (engine,) = TritonEngine.load([server.grpc])
        write(2)
        with InferenceServerClient(server.grpc) as control:
            control.load_model("tiny")
        asyncio.run(ask(engine))


def test_a_gateway_under_load_outlives_its_only_triton(repository: Path) -> None:
    """While it is gone every answer is 503; then 200 again, without a restart."""
    only = LocalTriton(repository, grpc_port=free_port())
    server = Server(triton=only.grpc)
    try:
        with load(server, 4) as outcomes:
            until(lambda: len(outcomes) > 8)
            only.kill()
            until(lambda: statuses(outcomes[-4:]) == {503})
            only = LocalTriton(repository, grpc_port=only.grpc_port)
            until(lambda: statuses(outcomes[-8:]) == {200})
        assert not any(isinstance(outcome, httpx.TransportError) for outcome in outcomes)
        assert statuses(outcomes) == {200, 503}
        assert statuses(outcomes[:8]) == {200}
        for outcome in outcomes:
            if isinstance(outcome, httpx.Response) and outcome.status_code == 503:
                check_error(outcome, 503, "engine_lost")
    finally:
        only.stop()
        assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def test_no_triton_at_the_start(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"no Triton answers with a model \(127\.0\.0\.1:1: "):
        TritonEngine.load([NOWHERE])
    manifest = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1)).manifest
    engine = TritonEngine([NOWHERE], manifest, "7")

    async def infer() -> None:
        with pytest.raises(EngineLostError, match=NOWHERE):
            await engine.infer(noise(HEIGHT, WIDTH)[None], TASKS)
        await engine.close()

    asyncio.run(infer())
