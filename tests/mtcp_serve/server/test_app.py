"""The application around ``/predict``: models, health, reference, request ids, and unexpected errors."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from mtcp_serve import errors
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import Manifest, TaskSpec
from mtcp_serve.clients import TritonClient
from mtcp_serve.errors import BundleNotFoundError, RequestError
from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS
from mtcp_serve.outputs.schemas import BatchOut, ModelsOut, PredictOut
from mtcp_serve.server.app import create_app
from mtcp_serve.server.routes import examples
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import free_port
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, noise


class BrokenEngine:
    """An engine whose network gives nonsense."""

    device = "cpu"
    parallel = 1

    def __init__(self, bundle: Path, value: float) -> None:
        self.manifest = Manifest.load(bundle)
        self.value = value

    async def close(self) -> None:
        pass

    async def infer(self, images: Any, tasks: Sequence[TaskSpec]) -> list[Any]:
        if self.value == 0 and images.any():
            raise ZeroDivisionError("secret detail")
        kind = np.uint8 if np.isfinite(self.value) else np.float32
        return [np.full((1, HEIGHT, WIDTH), self.value, kind) for _ in tasks]


def test_models(client: TestClient) -> None:
    (model,) = client.get("/models").json()["models"]
    assert {key: model[key] for key in ("name", "version", "default", "device", "parameters", "license")} == {
        "name": "tiny",
        "version": "7",
        "default": True,
        "device": "cpu",
        "parameters": 4096,
        "license": "Apache-2.0",
    }
    assert model["input"] == {"height": HEIGHT, "width": WIDTH, "resize": "stretch"}
    assert [task["name"] for task in model["tasks"]] == ["semseg", "depth", "normals", "saliency", "parsing"]
    assert model["tasks"][0]["labels"] == ["dark", "medium", "bright"]
    assert "gmacs" not in model


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_not_ready_before_the_start_and_after_the_end(settings: Settings) -> None:
    app = create_app(settings)
    for _ in range(2):
        idle = TestClient(app)
        assert idle.get("/health/live").status_code == 200
        for response in (idle.get("/health/ready"), idle.post("/predict", content=GOOD, headers=PNG)):
            check_error(response, 503, "not_ready")
            assert response.headers["retry-after"] == "1"
        with TestClient(app) as running:
            assert running.get("/health/ready").status_code == 200


def test_a_missing_bundle_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError), TestClient(create_app(Settings(bundle=(tmp_path,)))):
        pass


def test_request_ids(client: TestClient) -> None:
    given = client.get("/health/live", headers={"X-Request-ID": "order-66"})
    assert given.headers["x-request-id"] == "order-66"
    for odd in ("", "a b", "x" * 65):
        response = client.get("/health/live", headers={"X-Request-ID": odd})
        assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_an_unexpected_error_is_logged_and_hidden(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(Settings(bundle=(bundle,)), [BrokenEngine(bundle, 0)])) as client:
        response = client.post("/predict?tasks=semseg", content=GOOD, headers=PNG)
    check_error(response, 500, "internal_error")
    assert "secret" not in response.text
    assert "secret detail" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize(
    ("value", "task", "message"), [(99, "semseg", "class ids"), (np.nan, "saliency", "not finite")]
)
def test_nonsense_from_the_network_is_never_sent(
    bundle: Path, caplog: pytest.LogCaptureFixture, value: float, task: str, message: str
) -> None:
    settings = Settings(bundle=(bundle,), grpc_port=free_port())
    with TestClient(create_app(settings, [BrokenEngine(bundle, value)])) as client:
        response = client.post(f"/predict?tasks={task}", content=GOOD, headers=PNG)
        assert message in check_error(response, 500, "internal_error")["message"]
        assert message in caplog.text

        caplog.clear()
        batch = client.post(f"/predict/batch?tasks={task}", files={"image": GOOD})
        assert message in batch.json()["results"][0]["error"]["message"]
        assert message in caplog.text

        caplog.clear()
        with (
            TritonClient(f"127.0.0.1:{settings.grpc_port}") as over_grpc,
            pytest.raises(Exception, match=message),
        ):
            over_grpc.infer(noise(HEIGHT, WIDTH)[None], tasks=[task])
        assert message in caplog.text


def test_other_errors_have_the_shape_too(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    app: FastAPI = create_app(settings)

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", {"X-Handle": "yes"})

    @app.get("/gone")
    async def gone() -> None:
        raise ClientDisconnect

    client = TestClient(app)
    response = client.get("/teapot")
    assert check_error(response, 418, "http_error")["message"] == "short and stout"
    assert response.headers["x-handle"] == "yes"
    with caplog.at_level(logging.INFO, "mtcp_serve"), pytest.raises(AssertionError):
        client.get("/gone")
    assert "the client disconnected" in caplog.text


def test_reference_needs_no_network(client: TestClient) -> None:
    page = client.get("/docs")
    links = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(links) >= 3
    for link in links:
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    assert '"validatorUrl": null' in page.text


def test_openapi_describes_predict(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data", "image/*", "application/octet-stream",
    }  # fmt: skip
    for path, formats in (("/predict", FORMATS), ("/predict/batch", BATCH_FORMATS)):
        operation = document["paths"][path]["post"]
        both = {"tasks", "format", "size", "model", "visualize", "colormap", "legend"}
        both |= {"fov_x", "focal_px", "intrinsics", "confidence", "refine"}
        own = {"step", "edges", "background", "min_confidence", "distances"} if path == "/predict" else set()
        assert {parameter["name"] for parameter in operation["parameters"]} == both | own
        assert all(parameter["description"] for parameter in operation["parameters"])
        found = operation["responses"]["200"]["content"]
        assert set(found) == {form.media_type for form in formats.values()}
        documented = {int(status) for status in operation["responses"]}
        assert documented == {200, 400, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504}
        for status, response in operation["responses"].items():
            content = response["content"]["application/json"]
            assert content["schema"]["$ref"].startswith("#/components/schemas/")
            assert content["example"], status
            assert ("Retry-After" in response.get("headers", {})) == (status in ("429", "503"))
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("schema", "example"),
    [(PredictOut, examples.PREDICT), (BatchOut, examples.BATCH), (ModelsOut, examples.MODELS)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_examples_are_answers_that_the_schemas_allow(schema: type[BaseModel], example: Any) -> None:
    answer = schema.model_validate(example)
    assert json.loads(answer.model_dump_json(exclude_none=True)).keys() == example.keys()


def test_examples_are_of_the_shipped_model() -> None:
    """Whoever sends them to a server as it comes is not refused."""
    manifest = Manifest.load(DEFAULT_BUNDLE)
    about = json.loads(manifest.model_dump_json())
    tasks = {task["name"]: task for task in about["tasks"]}
    (ref,) = examples.PREDICT["models"]
    size = {"width": manifest.input.width, "height": manifest.input.height}
    assert ref == {"name": manifest.name, "version": manifest.version, **size}
    for name, shown in examples.PREDICT["maps"].items():
        assert shown["model"] == manifest.name
        known = tasks[name].keys() & shown.keys() - {"labels"}
        assert {key: shown[key] for key in known} == {key: tasks[name][key] for key in known}
        for label in shown.get("labels", ()):
            assert label["name"] == tasks[name]["labels"][label["id"]]
            assert label["color"] == tasks[name]["palette"][label["id"]]
    (model,) = examples.MODELS["models"]
    for shown in model["tasks"]:
        assert shown == {key: tasks[shown["name"]][key] for key in shown}
    known = about.keys() & model.keys() - {"tasks"}
    assert {key: model[key] for key in known} == {key: about[key] for key in known}

    paths = create_app(Settings()).openapi()["paths"]
    infer = paths["/v2/models/{name}/infer"]["post"]
    assert infer["parameters"][0]["schema"]["examples"] == [manifest.name]
    schema = infer["requestBody"]["content"]["application/json"]["schema"]["properties"]
    tensor = schema["inputs"]["items"]["properties"]
    assert tensor["shape"]["examples"] == [[1, size["height"], size["width"], 3]]
    (intrinsics,) = schema["parameters"]["properties"]["intrinsics"]["examples"]
    centre = [float(number) for number in intrinsics.split(",")[2:]]
    assert centre == [(size["width"] - 1) / 2, (size["height"] - 1) / 2]


def test_the_tree_of_errors_is_drawn_completely() -> None:
    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]
    for cls in found:
        assert f" {cls.__name__}" in (errors.__doc__ or "") or cls is errors.MtcpServeError
        if issubclass(cls, RequestError) and cls is not RequestError:
            assert f"{cls.__name__} " in (errors.__doc__ or "")
            assert f"{cls.status} {cls.code}" in (errors.__doc__ or "")
            assert cls("what happened").body()["error"]["hint"]
    assert len(found) >= 20
