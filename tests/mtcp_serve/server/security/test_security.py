"""API keys, CORS, and the headers of every answer, over real sockets and in this process."""

import http.client
import re
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from pydantic import ValidationError
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from mtcp_serve.clients import GatewayClient, TritonClient, UnauthorizedError
from mtcp_serve.errors import SettingsError
from mtcp_serve.server.app import create_app
from mtcp_serve.server.security.api_keys import ApiKeys
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, STUCK, WIDTH, noise
from tests.needs import needs_posix

KEY = "the-key-of-the-tests"
OTHER = "another.key~of+the/tests=="
THIRD = "one-more-key-of-the-tests"
BEARER = {"Authorization": f"Bearer {KEY}"}
ORIGIN = "https://a.example"
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
}


def keys_file(folder: Path, text: str) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, Path]]:
    """A server with two keys, its gRPC address, and the file of the keys."""
    keys = keys_file(tmp_path_factory.mktemp("keys"), f"# ours\n\nweb: {KEY}  # the page\n{OTHER}\n")
    port = free_port()
    server = Server(
        bundle, api_keys_file=keys, grpc_port=port, cors_origin=ORIGIN, concurrency=1, queue_size=0,
        deadline_s=PATIENCE_S, log_format="json",
    )  # fmt: skip
    yield server, f"127.0.0.1:{port}", keys
    assert server.stop() in CLEAN
    log = "".join(server.log)
    assert "Traceback" not in log
    for key in (KEY, OTHER, THIRD):
        assert key not in log


@pytest.fixture(scope="module")
def server(guarded: tuple[Server, str, Path]) -> Server:
    return guarded[0]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "the request has no API key"),
        ({"Authorization": "Bearer"}, "the API key is wrong"),
        ({"Authorization": f"Bearer {KEY}x"}, "the API key is wrong"),
        ({"Authorization": f"Basic {KEY}"}, "the request has no API key"),
        ({"X-API-Key": KEY[:-1]}, "the API key is wrong"),
        ({"X-API-Key": ""}, "the request has no API key"),
        ({"X-API-Key": "café-ﬃ".encode("latin-1", "replace")}, "the API key is wrong"),
    ],
)
def test_without_a_key_there_is_a_challenge(server: Server, headers: dict[str, Any], message: str) -> None:
    response = server.client.get("/models", headers=headers)
    assert check_error(response, 401, "unauthorized")["message"] == message
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": OTHER},
        {"Authorization": "Basic abc", "X-API-Key": KEY},
    ],
)
def test_a_key_opens(server: Server, headers: dict[str, str]) -> None:
    assert server.client.get("/models", headers=headers).status_code == 200
    assert server.client.post("/predict?tasks=depth", content=GOOD, headers=PNG | headers).status_code == 200


def test_what_needs_a_key_and_what_does_not(bundle: Path, tmp_path: Path) -> None:
    """Every path of the application is one or the other; an unknown one says nothing without a key."""
    app = create_app(Settings(bundle=(bundle,), api_keys_file=keys_file(tmp_path, KEY), intra_op_threads=1))
    with TestClient(app, follow_redirects=False) as client:
        document = client.get("/openapi.json").json()
        answers = {
            (path, method): client.request(method, path)
            for path, operations in document["paths"].items()
            for method in operations
        }
        without = {path for (path, _), answer in answers.items() if answer.status_code != 401}
        for path in ("/", "/docs", "/static-offline-docs/swagger-ui.css", "/web/icon.svg"):
            assert client.get(path).status_code == 200, path
        for path in ("/nothing", "/health/live/", "/Metrics", "/web"):
            assert client.get(path).status_code == 401, path
        assert client.put("/predict").status_code == 401
    assert without == {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in without)
            assert ("401" in operation["responses"]) == (path not in without)
    for (path, method), answer in answers.items():
        if path not in without:
            described = document["paths"][path][method]["responses"]["401"]
            assert all(name in answer.headers for name in described["headers"])
            assert described["content"]["application/json"]["example"] == answer.json()
            reference = described["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert set(document["components"]["schemas"][reference]["properties"]) == set(answer.json())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("//metrics", 401),
        ("/health/live/../../metrics", 401),
        ("/health/x/../live", 401),
        ("/metrics;/web/", 401),
        ("/web/../metrics", 404),
        ("/web/%2e%2e/metrics", 404),
        ("/static-offline-docs/../metrics", 404),
        ("http://x/metrics", 401),
        ("*", 401),
    ],
)
def test_odd_paths_open_nothing(server: Server, path: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.client.base_url.port or 0, timeout=PATIENCE_S)
    connection.request("GET", path)
    assert connection.getresponse().status == status
    connection.close()


def test_the_reference_speaks_of_keys_only_where_there_are_some(client: TestClient) -> None:
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_a_refusal_comes_before_the_body_and_the_queue(server: Server) -> None:
    with server.connect("Content-Length: 5000") as connection:
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 401 ")
        while answer:
            answer = connection.recv(4096)
    stuck = server.client.build_request("POST", "/predict", content=STUCK, headers=PNG | BEARER)
    with socket.create_connection(("127.0.0.1", server.client.base_url.port or 0)) as busy:
        busy.sendall(raw(stuck))  # the one slot taken, no place in the queue
        until(lambda: running(server, 1))
        assert (predict_status(server, {}), predict_status(server, BEARER)) == (401, 429)
    until(lambda: running(server, 0))


def running(server: Server, requests: int) -> bool:
    """Whether so many have a slot."""
    figures = server.client.get("/metrics", headers=BEARER).text
    return f"mtcp_running_requests {requests:.1f}" in figures


def predict_status(server: Server, headers: dict[str, str]) -> int:
    return server.client.post("/predict?tasks=depth", content=GOOD, headers=PNG | headers).status_code


def raw(request: httpx.Request) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {request.url.raw_path.decode()} HTTP/1.1\r\n{head}\r\n".encode() + request.read()


def test_grpc_wants_the_same_keys(guarded: tuple[Server, str, Path]) -> None:
    _, address, _ = guarded
    images = noise(HEIGHT, WIDTH)[None]
    with tritonclient.grpc.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        tensor = tritonclient.grpc.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": KEY[1:]}):
            for call in (
                partial(client.infer, "tiny", [tensor]),
                client.get_model_repository_index,
                partial(client.is_model_ready, "tiny"),
            ):
                with pytest.raises(InferenceServerException, match="API key") as caught:
                    call(headers=headers)
                assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        for headers in ({"authorization": f"Bearer {OTHER}"}, {"x-api-key": KEY}):
            result = client.infer("tiny", [tensor], headers=headers)
            assert np.allclose(result.as_numpy("depth_metres")[0], images[0].mean(-1) / 25.5, atol=1e-5)
        errors: list[Any] = []
        client.start_stream(lambda result, error: errors.append(error), headers={"x-api-key": "wrong"})
        until(lambda: bool(errors))
        assert "API key" in str(errors[0])


def test_our_clients_send_a_key(guarded: tuple[Server, str, Path]) -> None:
    server, address, _ = guarded
    with GatewayClient(server.url, api_key=KEY) as gateway, TritonClient(address, api_key=KEY) as triton:
        assert gateway.models()[0]["name"] == "tiny"
        assert set(gateway.predict(GOOD, tasks=["depth"])) == {"depth"}
        assert triton.infer(noise(HEIGHT, WIDTH)[None], ["depth"])[0]["depth"].shape == (HEIGHT, WIDTH)
    with (
        GatewayClient(server.url, api_key=KEY[1:]) as gateway,
        TritonClient(address) as triton,
    ):
        for ask in (gateway.models, lambda: triton.model):
            with pytest.raises(UnauthorizedError, match="API key"):
                ask()


def counted(server: Server, line: str) -> bool:
    """Whether ``/metrics`` has such a line."""
    return re.search(line, server.client.get("/metrics", headers=BEARER).text) is not None


def test_the_log_and_the_figures_know_labels_not_keys(guarded: tuple[Server, str, Path]) -> None:
    server, address, _ = guarded
    server.client.get("/models", headers=BEARER | {"X-Request-ID": "labelled-1"})
    with tritonclient.grpc.InferenceServerClient(address) as client:
        client.get_server_metadata(headers={"x-api-key": OTHER, "x-request-id": "labelled-2"})
        with pytest.raises(InferenceServerException):
            client.get_server_metadata(headers={"x-request-id": "labelled-3"})
    server.client.get("/models", headers={"X-API-Key": THIRD})
    for line in (
        r'mtcp_key_requests_total\{key="web"\} \d',
        r'mtcp_key_requests_total\{key="unnamed"\} \d',
        r'mtcp_requests_total\{method="GRPC",path="/inference.GRPCInferenceService/ServerMetadata",status="OK"\}',
        r'mtcp_requests_total\{method="GRPC",path="\S+/ServerMetadata",status="UNAUTHENTICATED"\}',
        r'mtcp_errors_total\{code="unauthorized"\}',
    ):
        until(lambda line=line: counted(server, line))  # type: ignore[misc]
    until(lambda: sum("labelled-" in line for line in server.log) == 3)
    lines = {
        number: next(line for line in server.log if f"labelled-{number}" in line) for number in (1, 2, 3)
    }
    assert '"key": "web"' in lines[1]
    assert '"key": "unnamed"' in lines[2]
    assert '"method": "GRPC"' in lines[2]
    assert '"code": "unauthorized"' in lines[3]
    assert '"status": "UNAUTHENTICATED"' in lines[3]


@pytest.mark.parametrize(
    ("method", "path", "label"),
    [
        ("POST", "/predict", "/predict"),
        ("GET", "/v2/models/anything", "/v2/models/{name}"),
        ("GET", "/nothing", "other"),
    ],
)
def test_a_request_without_a_key_is_counted_under_its_path(
    server: Server, method: str, path: str, label: str
) -> None:
    name = f'mtcp_requests_total{{method="{method}",path="{label}",status="401"}}'
    before = server.count(name, BEARER)
    assert server.client.request(method, path).status_code == 401
    until(lambda: server.count(name, BEARER) > before)


def test_sighup_reads_the_keys_again(guarded: tuple[Server, str, Path]) -> None:
    server, _, path = guarded
    before = path.read_text()

    def status(key: str) -> int:
        return server.client.get("/models", headers={"X-API-Key": key}).status_code

    assert (status(OTHER), status(THIRD)) == (200, 401)
    path.write_text(f"{KEY}\n{THIRD}\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: status(THIRD) == 200)
    assert status(OTHER) == 401
    path.write_text("# all gone\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "the old API keys stay" in "".join(server.log))
    assert status(THIRD) == 200
    path.write_text(before)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: status(OTHER) == 200)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no API key"),
        ("# only a comment\n", "holds no API key"),
        (f"{KEY}\nshort: abc\n", r"line 2: the API key has 3 characters, it needs 16"),
        ("a b: sixteen-characters\n", "line 1: a label is letters"),
        ("ok: sixteen characters\n", "line 1: an API key is letters"),
    ],
)
def test_a_file_that_would_let_nobody_or_anybody_in(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        create_app(Settings(api_keys_file=keys_file(tmp_path, text)))
    assert "sixteen" not in str(caught.value)


def test_keys_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_API_KEYS", f"a: {KEY}, {OTHER}")
    settings = Settings(api_keys_file=keys_file(tmp_path, THIRD))
    assert KEY not in f"{settings!r} {settings.model_dump()}"
    keys = ApiKeys(settings)
    assert [keys.check(None, key) for key in (KEY, OTHER, THIRD)] == ["a", "unnamed", "unnamed"]
    monkeypatch.setenv("MTCP_API_KEYS", "")
    with pytest.raises(SettingsError, match="MTCP_API_KEYS holds no API key"):
        ApiKeys(Settings())


def test_a_missing_file_and_one_that_all_can_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match="nowhere cannot be read"):
        ApiKeys(Settings(api_keys_file=tmp_path / "nowhere"))
    path = keys_file(tmp_path, KEY)
    ApiKeys(Settings(api_keys_file=path))
    assert "chmod" not in caplog.text
    path.chmod(0o644)
    ApiKeys(Settings(api_keys_file=path))
    assert "chmod 600" in caplog.text


def preflight(client: httpx.Client, origin: str, method: str = "POST") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    return client.options("/predict", headers={"Origin": origin, **asked})


def test_a_listed_origin_may_call(server: Server) -> None:
    answer = preflight(server.client, ORIGIN)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    answer = server.client.post("/predict", content=GOOD, headers=PNG | BEARER | {"Origin": ORIGIN})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert {"Server-Timing", "Retry-After", "X-Request-ID"} <= set(
        answer.headers["access-control-expose-headers"].split(", ")
    )
    assert {"Accept", "Origin"} <= set(answer.headers["vary"].split(", "))


def test_another_origin_may_not(server: Server) -> None:
    for answer in (
        preflight(server.client, "https://b.example"),
        preflight(server.client, f"{ORIGIN}.evil.example"),
        server.client.get("/models", headers=BEARER | {"Origin": "https://b.example"}),
    ):
        assert "access-control-allow-origin" not in answer.headers
    assert preflight(server.client, ORIGIN, "DELETE").status_code == 400


def test_errors_carry_cors_headers_too(server: Server, bundle: Path) -> None:
    """Else the page that asked would only learn that something failed."""
    origin = {"Origin": ORIGIN}
    hasty = create_app(Settings(bundle=(bundle,), intra_op_threads=1, cors_origin=(ORIGIN,), deadline_s=0.1))
    with TestClient(hasty) as client:
        late: Any = client.post("/predict", content=STUCK, headers=origin | PNG)
    answers = {
        401: server.client.get("/models", headers=origin),
        404: server.client.get("/nothing", headers=origin | BEARER),
        413: server.client.post("/predict", content=b"x" * (20 * 2**20 + 1), headers=origin | PNG | BEARER),
        504: late,
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE


def test_unexpected_failures_carry_both(bundle: Path) -> None:
    app = create_app(Settings(bundle=(bundle,), cors_origin=("*",)))

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    answer = TestClient(app).get("/broken", headers={"Origin": ORIGIN})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.json()["error"]["code"] == "internal_error"


@pytest.mark.parametrize("value", [("*", ORIGIN), (f"{ORIGIN}/",), ("a.example",), ("",), ("null",)])
def test_what_is_no_origin(value: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="origin"):
        Settings(cors_origin=value)


def test_origins_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_CORS_ORIGIN", f"{ORIGIN},http://localhost:5173")
    assert Settings().cors_origin == (ORIGIN, "http://localhost:5173")


def test_headers_of_every_answer(client: TestClient) -> None:
    photo = client.post("/predict?tasks=depth&format=png", content=GOOD, headers=PNG)
    static = client.get("/static-offline-docs/swagger-ui.css")
    page = client.get("/")
    reference = client.get("/docs")
    for answer in (photo, static, page, reference, client.get("/nothing"), client.put("/predict")):
        assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert photo.headers["cache-control"] == "no-store"
    assert "cache-control" not in static.headers
    assert "script-src" not in photo.headers["content-security-policy"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert "media-src 'self' blob:" in page.headers["content-security-policy"]
    assert "'unsafe-inline'" in reference.headers["content-security-policy"]


def test_no_server_header_on_the_wire(server: Server) -> None:
    for answer in (server.client.get("/health/live"), server.client.get("/models")):
        assert "server" not in answer.headers
        assert {name: answer.headers[name] for name in EVERYWHERE} == EVERYWHERE


@needs_posix
@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"]
)
def test_a_head_that_is_none_or_too_long(server: Server, head: bytes) -> None:
    with socket.create_connection(
        ("127.0.0.1", server.client.base_url.port or 0), timeout=PATIENCE_S
    ) as connection:
        connection.sendall(head)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "invalid_request"' in answer
    assert b"X-Content-Type-Options: nosniff" in answer
