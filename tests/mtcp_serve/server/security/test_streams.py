"""API keys and origins of streams, when they are opened and while they last."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.security.test_security import BEARER, KEY, OTHER, keys_file
from tests.mtcp_serve.support import GOOD
from tests.needs import needs_posix


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, Path]]:
    """A server with two keys, its gRPC address, and the file of the keys."""
    keys = keys_file(tmp_path_factory.mktemp("keys"), f"web: {KEY}\n{OTHER}\n")
    port = free_port()
    server = Server(bundle, api_keys_file=keys, grpc_port=port, deadline_s=PATIENCE_S, log_format="json")
    yield server, f"127.0.0.1:{port}", keys
    assert server.stop() in CLEAN
    log = "".join(server.log)
    assert "Traceback" not in log
    assert KEY not in log
    assert OTHER not in log


@pytest.mark.parametrize(
    ("headers", "status", "code", "key"),
    [
        ({}, 401, "unauthorized", None),
        (BEARER | {"Origin": "https://b.example"}, 403, "forbidden_origin", "web"),
    ],
)
def test_a_stream_that_is_refused_is_logged_and_counted_like_a_request(
    guarded: tuple[Server, str, Path], headers: dict[str, str], status: int, code: str, key: str | None
) -> None:
    server, _, _ = guarded
    names = (
        f'mtcp_requests_total{{method="WS",path="/stream",status="{status}"}}',
        f'mtcp_errors_total{{code="{code}"}}',
    )
    before = [server.count(name, BEARER) for name in names]
    request_id = f"refused-{status}"
    with pytest.raises(InvalidStatus) as refused:
        connect(
            f"{server.url.replace('http', 'ws')}/stream",
            additional_headers={**headers, "X-Request-ID": request_id},
        )
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["X-Request-ID"] == request_id
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == code
    line = server.logged(request_id)
    found = tuple(line.get(name) for name in ("event", "method", "path", "status", "code", "key"))
    assert found == ("request", "WS", "/stream", status, code, key)
    assert all(server.count(name, BEARER) > count for name, count in zip(names, before, strict=True))


@needs_posix
def test_a_key_that_is_taken_out_ends_open_streams(guarded: tuple[Server, str, Path]) -> None:
    """At their next frame; streams with other keys go on."""
    server, address, path = guarded
    before = path.read_text()

    def status() -> int:
        return server.client.get("/models", headers={"X-API-Key": OTHER}).status_code

    def opened(key: str) -> ClientConnection:
        return connect(
            f"{server.url.replace('http', 'ws')}/stream?tasks=depth", additional_headers={"X-API-Key": key}
        )

    frames: Queue[Any] = Queue()
    message = service_pb2.ModelInferRequest(model_name="tiny")  # whose answer is that it has no image
    with opened(OTHER) as stream, opened(KEY) as other, grpc.insecure_channel(address) as channel:
        for each in (stream, other):
            each.send(GOOD)
            assert isinstance(each.recv(PATIENCE_S), bytes)
        answers = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelStreamInferResponse.FromString,
        )(iter(frames.get, None), timeout=PATIENCE_S, metadata=(("x-api-key", OTHER),))
        frames.put(message)
        assert next(answers).error_message
        path.write_text(f"{KEY}\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: status() == 401)

        stream.send(GOOD)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(PATIENCE_S)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the API key is wrong")
        frames.put(message)
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        frames.put(None)
        other.send(GOOD)
        assert isinstance(other.recv(PATIENCE_S), bytes)
    path.write_text(before)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: status() == 200)
