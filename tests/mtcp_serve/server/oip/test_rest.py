"""``/v2`` as JSON over HTTP, request by request: what is wrong is told in the protocol's words."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mtcp_serve.inference.camera import Camera
from mtcp_serve.server.app import create_app
from mtcp_serve.server.oip import rest
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.support import HEIGHT, WIDTH, noise


def post(client: TestClient, body: bytes, header_length: int | str | None = None) -> Any:
    headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
    return client.post("/v2/models/tiny/infer", content=body, headers=headers)


@pytest.fixture(scope="module")
def local(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


def tensor(**changes: Any) -> dict[str, Any]:
    good = {
        "name": "image",
        "datatype": "UINT8",
        "shape": [1, HEIGHT, WIDTH, 3],
        "data": noise(HEIGHT, WIDTH).tolist(),
    }
    return good | changes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request is wrong"),
        (b"{}", "inputs: Field required"),
        ({"inputs": []}, "the model takes one input 'image'; the request has none"),
        ({"inputs": [tensor(), tensor(name="b")]}, "the request has image, b"),
        ({"inputs": [tensor(datatype="FP32")]}, "this is FP32"),
        ({"inputs": [tensor(shape=[])]}, r"this is UINT8 []"),
        ({"inputs": [tensor(shape=[0, HEIGHT, WIDTH, 3])]}, "image must be UINT8"),
        ({"inputs": [tensor(data=[1, 2])]}, "image has 2 elements, its shape needs 2304"),
        ({"inputs": [tensor(data=None)]}, "image has 0 elements"),
        ({"inputs": [tensor(data=["a"])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=[[1], [1, 2]])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=[2**70])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=[0.5, 1])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=["12"])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=[True])]}, "data is not an array of whole numbers"),
        ({"inputs": [tensor(data=[256])]}, "values that are not 0 to 255"),
        ({"inputs": [tensor(data=[-1])]}, "values that are not 0 to 255"),
        ({"inputs": [tensor(parameters={"binary_data_size": 5})]}, "more than the body holds"),
        ({"inputs": [tensor(parameters={"binary_data_size": "5"})]}, "more than the body holds"),
    ],
)
def test_wrong_bodies(local: TestClient, body: Any, message: str) -> None:
    response = post(local, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]
    assert "(GET /v2/models/NAME says" in response.json()["error"]


def test_wrong_lengths(local: TestClient) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    assert post(local, body).status_code == 200
    assert post(local, body, len(body)).status_code == 200
    for length in (len(body) + 1, -1, "9" * 5000):
        assert "Inference-Header-Content-Length" in post(local, body, length).json()["error"]
    assert "3 bytes of the body belong to no tensor" in post(local, body + b"abc", len(body)).json()["error"]
    large = post(local, b" " * (64 * 2**20 + 1))
    assert large.status_code == 413


def test_null_is_what_was_left_out(local: TestClient) -> None:
    nothing = {"id": None, "outputs": None, "parameters": None}
    body = {**nothing, "model_name": "tiny", "inputs": [tensor(parameters=None)]}
    response = post(local, json.dumps(body).encode())
    assert response.status_code == 200, response.text
    assert "id" not in response.json()
    one = {"inputs": [tensor()], "outputs": [{"name": "parsing", "parameters": None}]}
    assert [each["name"] for each in post(local, json.dumps(one).encode()).json()["outputs"]] == ["parsing"]


def test_health_says_so_in_json(local: TestClient) -> None:
    """As KServe's client reads it; Triton's looks at the status."""
    assert local.get("/v2/health/live").json() == {"live": True}
    assert local.get("/v2/health/ready").json() == {"ready": True}
    assert local.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert local.get("/v2/models/tiny/versions/7/ready").json() == {"name": "tiny", "ready": True}


def test_json_of_more_numbers_than_the_model_takes_is_not_parsed(
    local: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number would take many times its text; 16 images are the most that a request may have."""
    most = 16 * HEIGHT * WIDTH * 3
    head = b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[16,24,32,3],"data":['
    full = post(local, head + b"0," * (most - 1) + b"0]}]}")
    assert full.status_code == 200, full.text

    def parsed(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(rest.InferRequest, "model_validate_json", parsed)
    response = post(local, head + b"0," * (most + 5000) + b"0]}]}")
    assert response.status_code == 400
    assert f"the largest input of the model has {most} elements" in response.json()["error"]


def test_a_response_of_numbers_takes_little_more_memory_than_its_text(local: TestClient) -> None:
    """As Python's numbers all of them would take several times as much."""
    app: Any = local.app
    manifest = app.state.service.models["tiny"].engine.manifest
    (depth,) = (task for task in manifest.tasks if task.name == "depth")
    values = np.random.default_rng(0).random((2, 400, 500), np.float32)
    request = rest.InferRequest.model_validate({"id": "a", "inputs": []})
    tracemalloc.start()
    try:
        body, binary = rest.write(
            request, manifest, [depth], [values], Camera.of_focal(500, 400, 300, 300, "assumed")
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.6 * len(body), "the text, a copy of it, and some numbers"
    answer = json.loads(body)
    assert (binary, answer["id"]) == (None, "a")
    assert np.array_equal(np.array(answer["outputs"][0]["data"], np.float32).reshape(values.shape), values)


def test_errors_of_the_protocol_are_strings(local: TestClient) -> None:
    for path in ("/v2/models/other", "/v2/nothing", "/v2/models/tiny/versions/8/ready"):
        response = local.get(path)
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)
