"""``WS /stream``: what ``POST /predict`` would answer, for the newest frame; close codes say why."""

import asyncio
import base64
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from mtcp_serve.server.app import create_app
from mtcp_serve.server.routes.stream import Newest
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, until
from tests.mtcp_serve.support import GOOD, SLOW, STUCK, encode, noise

KEY = "a-key-for-the-tests-0123456789"
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"camera: {KEY}\n")
    server = Server(bundle, api_keys_file=keys, max_bytes=100_000, header_s=5)
    yield server
    server.stop()


def opened(server: Server, query: str = "", **headers: str) -> ClientConnection:
    return connect(
        f"{server.url.replace('http', 'ws')}/stream?{query}", additional_headers={"X-API-Key": KEY, **headers}
    )


def arrays(message: Any) -> dict[str, Any]:
    assert isinstance(message, bytes), message
    with np.load(io.BytesIO(message)) as archive:
        return dict(archive)


def test_every_frame_gets_what_predict_would_answer(server: Server) -> None:
    with opened(server, "tasks=depth,semseg") as stream:
        for seed in range(3):
            frame = encode(noise(30, 40, seed))
            stream.send(frame)
            found = arrays(stream.recv())
            headers = {"X-API-Key": KEY, **RAW}
            body = server.client.post(
                "/predict?tasks=depth,semseg&format=npz", content=frame, headers=headers
            )
            want = arrays(body.content)
            assert found.keys() == want.keys() == {"depth", "semseg", "metadata"}
            assert all(np.array_equal(found[name], want[name]) for name in ("depth", "semseg"))
        stream.send(b"no image")
        error = json.loads(stream.recv())["error"]
        assert error["code"] == "invalid_image"
        stream.send(GOOD)  # the stream goes on
        assert "depth" in arrays(stream.recv())


def test_frames_that_come_while_one_is_worked_on_give_way_to_the_last() -> None:
    async def check() -> None:
        newest = Newest()
        for frame in (b"first", b"second", b"third"):
            newest.put(frame)
        assert await newest.get() == b"third"
        assert newest.number == 2
        waiting = asyncio.ensure_future(newest.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        newest.put(b"fourth")
        assert await waiting == b"fourth"
        assert newest.number == 3
        left = asyncio.ensure_future(newest.left())
        await asyncio.sleep(0)
        assert not left.done()
        newest.put(b"fifth")
        newest.leave(WebSocketDisconnect())  # nobody wants the fifth
        await left
        with pytest.raises(WebSocketDisconnect):
            await newest.get()

    asyncio.run(check())


def test_answers_come_in_order_and_the_last_is_of_the_last_frame(server: Server) -> None:
    with opened(server, "tasks=depth&size=model") as stream:
        stream.send(SLOW)
        for level in range(10, 60, 10):
            stream.send(encode(np.full((24, 32, 3), level, np.uint8)))
        levels: list[int] = []
        while not levels or levels[-1] != 50:
            levels.append(round(25.5 * float(arrays(stream.recv())["depth"].mean())))
        seen = [level for level in levels if level != 170]  # of the slow one, which may have been taken first
        assert seen == sorted(set(seen))
        stream.send(encode(np.full((24, 32, 3), 99, np.uint8)))
        assert round(25.5 * float(arrays(stream.recv())["depth"].mean())) == 99  # nothing else was waiting


def test_each_answer_says_of_which_frame_it_is(server: Server) -> None:
    address = f"{server.url.replace('http', 'ws')}/stream?tasks=depth&size=model"
    protocols = [Subprotocol("mtcp"), Subprotocol(key_protocol(KEY))]
    with connect(address, subprotocols=protocols) as stream:
        stream.send(SLOW)
        for level in range(10, 60, 10):
            stream.send(encode(np.full((24, 32, 3), level, np.uint8)))
        number = -1
        while number < 5:
            number = json.loads(stream.recv())["frame"]
            level = round(25.5 * float(arrays(stream.recv())["depth"].mean()))
            assert level == (10 * number or 170)


def test_an_idle_stream_stays_open(server: Server) -> None:
    """Longer than a connection may take for the head of a request."""
    with opened(server, "tasks=depth") as stream:
        with pytest.raises(TimeoutError):
            stream.recv(timeout=5.5)
        stream.send(GOOD)
        assert "depth" in arrays(stream.recv())


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("tasks=none", "has no task 'none'"),
        ("format=ply&tasks=semseg", "needs a depth map"),
        ("colour=red", "colour: Extra inputs are not permitted"),
        ("fov_x=60&focal_px=3", "give one of them"),
        ("tasks=depth&size=model&tasks=semseg", "tasks is given 2 times"),
    ],
)
def test_wrong_parameters_close_it_and_say_so(server: Server, query: str, reason: str) -> None:
    with opened(server, query) as stream, pytest.raises(ConnectionClosed) as closed:
        stream.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert reason in closed.value.rcvd.reason


@pytest.mark.parametrize(("message", "code"), [("text", 1003), (bytes(100_001), 1009)])
def test_messages_that_are_no_frames(server: Server, message: Any, code: int) -> None:
    with opened(server, "tasks=depth") as stream:
        stream.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


@pytest.fixture(scope="module")
def narrow(bundle: Path) -> Iterator[Server]:
    """A server with one slot, none of whose times ends while a test lasts."""
    server = Server(
        bundle, max_bytes=100_000, concurrency=1, queue_size=2, deadline_s=PATIENCE_S, log_format="json"
    )
    yield server
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def test_the_frame_of_a_client_that_left_is_dropped(narrow: Server) -> None:
    """While it is worked on, and while it waits."""
    before = narrow.metric("mtcp_client_disconnects_total")
    with opened(narrow) as stream:
        stream.send(STUCK)
        until(lambda: narrow.metric("mtcp_running_requests") == 1)
        with opened(narrow) as other:
            other.send(GOOD)
            until(lambda: narrow.metric("mtcp_queue_requests") == 1)
            other.socket.shutdown(socket.SHUT_RDWR)  # without a word
        until(lambda: narrow.metric("mtcp_queue_requests") == 0)
    until(lambda: narrow.metric("mtcp_running_requests") == 0)
    until(lambda: narrow.metric("mtcp_client_disconnects_total") == before + 2)
    with opened(narrow, "tasks=depth") as stream:  # one whose frames are answered is not counted
        stream.send(GOOD)
        stream.recv()
    assert narrow.predict().status_code == 200
    assert narrow.metric("mtcp_client_disconnects_total") == before + 2


@pytest.mark.parametrize(("message", "code"), [("text", 1003), (bytes(100_001), 1009)])
def test_no_frame_while_one_is_worked_on(narrow: Server, message: Any, code: int) -> None:
    with opened(narrow, "tasks=depth") as stream:
        stream.send(STUCK)
        until(lambda: narrow.metric("mtcp_running_requests") == 1)
        stream.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    until(lambda: narrow.metric("mtcp_running_requests") == 0)


@pytest.mark.parametrize(("code", "status"), [(1000, "1000"), (4321, "other")])
def test_a_stream_is_logged_and_counted_when_it_ends(narrow: Server, code: int, status: str) -> None:
    name = f'mtcp_requests_total{{method="WS",path="/stream",status="{status}"}}'
    until(lambda: narrow.metric("mtcp_streams") == 0)
    with opened(narrow, "tasks=depth", **{"X-Request-ID": f"stream-{code}"}) as stream:
        assert stream.response is not None
        assert stream.response.headers["X-Request-ID"] == f"stream-{code}"
        for frame in (GOOD, b"no image"):
            stream.send(frame)
            stream.recv(PATIENCE_S)
        assert narrow.metric("mtcp_streams") == 1
        before = narrow.count(name)
        stream.close(code)
    line = narrow.logged(f"stream-{code}")
    assert (line["event"], line["method"], line["path"]) == ("stream", "WS", "/stream")
    assert (line["status"], line["frames"]) == (code, 2)
    assert line["ms"] > 0
    assert "code" not in line
    assert narrow.count(name) == before + 1
    until(lambda: narrow.metric("mtcp_streams") == 0)


def test_a_stream_whose_connection_broke_is_told_from_one_that_was_closed(narrow: Server) -> None:
    for name, code in ("lost", 1006), ("closed-without-a-code", 1005):
        with opened(narrow, "tasks=depth", **{"X-Request-ID": name}) as stream:
            stream.send(GOOD)
            stream.recv(PATIENCE_S)
            if code == 1006:
                stream.socket.shutdown(socket.SHUT_RDWR)
            else:
                stream.protocol.send_close()
                stream.socket.sendall(b"".join(stream.protocol.data_to_send()))
            assert narrow.logged(name)["status"] == code


def test_a_stream_that_the_server_closes_is_counted_by_its_error(narrow: Server) -> None:
    name = 'mtcp_errors_total{code="unknown_task"}'
    before = narrow.count(name)
    headers = {"X-Request-ID": "of-no-task"}
    with opened(narrow, "tasks=none", **headers) as stream, pytest.raises(ConnectionClosed):
        stream.recv(PATIENCE_S)
    line = narrow.logged("of-no-task")
    assert (line["status"], line["frames"], line["code"]) == (1008, 0, "unknown_task")
    assert narrow.count(name) == before + 1


def test_keys_and_origins(server: Server) -> None:
    for headers, status in (
        ({"X-API-Key": "wrong"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://["}, 403),  # no address at all
    ):
        with pytest.raises(InvalidStatus) as refused, opened(server, "tasks=depth", **headers):
            pass
        assert refused.value.response.status_code == status
    with opened(server, "tasks=depth", Origin=server.url) as stream:
        stream.send(GOOD)
        assert "depth" in arrays(stream.recv())


def key_protocol(key: str) -> str:
    return "mtcp.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def test_a_browser_gives_the_key_as_a_subprotocol_that_is_not_told_again(server: Server) -> None:
    address = f"{server.url.replace('http', 'ws')}/stream?tasks=depth"
    for protocols in (["mtcp", key_protocol(KEY)], [key_protocol(KEY), "mtcp"]):
        with connect(address, subprotocols=[Subprotocol(name) for name in protocols]) as stream:
            assert stream.subprotocol == "mtcp"
            assert stream.response is not None
            assert "mtcp.key" not in str(stream.response.headers)
            for number, frame in enumerate((GOOD, b"no image", GOOD)):
                stream.send(frame)
                told = json.loads(stream.recv())
                assert told["frame"] == number
                assert ("error" in told) == (frame != GOOD)
                if frame == GOOD:
                    assert "depth" in arrays(stream.recv())
    wrong = [["mtcp"], ["mtcp", key_protocol("wrong")], ["mtcp", "mtcp.key.A"], ["mtcp", f"mtcp.key.{KEY}!"]]
    for protocols in wrong:
        with pytest.raises(InvalidStatus) as refused:
            connect(address, subprotocols=[Subprotocol(name) for name in protocols])
        assert refused.value.response.status_code == 401
    with opened(server, "tasks=depth") as stream:  # nobody is given a subprotocol that was not asked for
        assert stream.subprotocol is None
    assert not [line for line in server.log if KEY in line or key_protocol(KEY) in line]


def test_no_more_streams_than_uploads(bundle: Path) -> None:
    settings = Settings(bundle=(bundle,), max_concurrent_uploads=1)
    with (
        TestClient(create_app(settings)) as client,
        client.websocket_connect("/stream?tasks=depth") as first,
    ):
        first.send_bytes(GOOD)
        first.receive_bytes()
        with client.websocket_connect("/stream?tasks=depth") as second:
            with pytest.raises(WebSocketDisconnect) as closed:
                second.receive_bytes()
            assert closed.value.code == 1013
        first.send_bytes(GOOD)
        first.receive_bytes()
