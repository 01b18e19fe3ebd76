"""A real server process on a loopback port: overload, deadlines, bodies cut off, and a clean end."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, STUCK, WIDTH, noise
from tests.needs import needs_linux, needs_posix


def start(bundle: Path, deadline_s: float = PATIENCE_S) -> Server:
    return Server(bundle, concurrency=1, queue_size=1, deadline_s=deadline_s, max_bytes=200_000)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = start(bundle)
    yield server
    server.stop()


def test_start_says_what_is_served(server: Server) -> None:
    assert "tiny 7 on cpu: semseg, depth, normals, saliency, parsing" in "".join(server.log)
    assert server.client.get("/health/ready").json() == {"status": "ready"}


def test_the_maps_are_exact(server: Server) -> None:
    answer = server.predict(query="").json()
    depth = Image.open(BytesIO(base64.b64decode(answer["maps"]["depth"]["png"])))
    want = noise(HEIGHT, WIDTH).astype(np.float64).mean(-1) / 25.5
    assert np.abs(np.asarray(depth) / 1000 - want).max() <= 0.00051
    with np.load(BytesIO(server.predict(query="format=npz").content)) as archive:
        assert np.allclose(archive["depth"], want, rtol=1e-5)
        assert json.loads(archive["metadata"].item())["maps"].keys() == answer["maps"].keys()


def test_a_late_answer_is_504_and_the_next_one_is_good(bundle: Path) -> None:
    server = start(bundle, deadline_s=2)
    error = check_error(server.predict(STUCK), 504, "deadline_exceeded")
    assert error["message"] == "the response was not ready within 2 s"
    until(lambda: server.predict().status_code == 200)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(server.predict, STUCK)
        until(lambda: late.done() or server.metric("mtcp_running_requests") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert late.result().status_code == 504
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def test_a_full_queue_is_429_and_the_next_one_is_good(server: Server) -> None:
    with server.held(2), ThreadPoolExecutor(4) as pool:
        for response in pool.map(server.predict, [GOOD] * 4):
            check_error(response, 429, "overloaded")
            assert response.headers["retry-after"] == "1"
    assert server.predict().status_code == 200


def test_an_oversize_body_is_refused_before_it_is_read(server: Server) -> None:
    with server.connect("Content-Length: 9000000000") as connection:
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert server.predict().status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_reads_why(server: Server, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    content = chunks() if chunked else b"x" * 10_000_000
    check_error(server.client.post("/predict", content=content, headers=PNG), 413, "payload_too_large")


@pytest.mark.parametrize("query", ["", "tasks=nothing"], ids=["the answer ends it", "kept alive"])
def test_an_endless_body_is_cut_off(server: Server, query: str) -> None:
    sent = 0
    with server.connect("Transfer-Encoding: chunked", query) as connection:
        while sent < 2**30:
            try:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            except OSError:
                break
            sent += 0x10000
    assert sent < 2 * Settings().max_discarded_bytes
    assert server.predict().status_code == 200


def test_after_a_refusal_the_connection_is_good_for_more(server: Server) -> None:
    """The body of a request that was answered early is passed over, whenever it comes."""
    with server.connect(f"Content-Length: {len(GOOD)}", "tasks=nothing") as connection:
        refused = HTTPResponse(connection)
        refused.begin()
        assert refused.status == 404
        assert refused.read()
        assert refused.getheader("connection") is None
        connection.sendall(GOOD + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        alive = HTTPResponse(connection)
        alive.begin()
        assert alive.status == 200


def test_a_client_that_waits_for_leave_to_send_is_not_waited_for(server: Server) -> None:
    """It has not sent the body, and may never: what it sends next must not be taken for one."""
    asks = f"Content-Length: {len(GOOD)}\r\nExpect: 100-continue"
    with server.connect(asks, "tasks=nothing") as connection:
        refused = HTTPResponse(connection)
        refused.begin()
        assert (refused.status, refused.getheader("connection")) == (404, "close")
        refused.read()
        assert connection.recv(1) == b""
    with server.connect(asks, "tasks=depth") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(GOOD)
        answer = HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200


def test_a_client_that_has_sent_all_gets_its_response(server: Server) -> None:
    """It closes its side of the connection (``nc -N``), and waits; one that closes all of it is gone."""
    with server.connect(f"Content-Length: {len(GOOD)}", "tasks=depth") as connection:
        with server.held(1):
            connection.sendall(GOOD)
            connection.shutdown(socket.SHUT_WR)
            until(lambda: server.metric("mtcp_queue_requests") == 1)
        answer = HTTPResponse(connection)
        answer.begin()  # it passes over the 100 Continue that asked whether the client is still there
        assert answer.status == 200
        assert answer.read()
        assert connection.recv(1) == b""


def test_a_client_that_hangs_up_harms_nobody(server: Server) -> None:
    for _ in range(3):
        with server.connect("Content-Length: 5000") as connection:
            connection.sendall(b"half")
    assert server.predict().status_code == 200


def test_sigterm_finishes_what_was_accepted(bundle: Path) -> None:
    server = start(bundle)
    with ThreadPoolExecutor(1) as pool:
        with server.connect(f"Content-Length: {len(STUCK)}") as stuck:
            stuck.sendall(STUCK)
            until(lambda: server.metric("mtcp_running_requests") == 1)
            waiting = pool.submit(server.predict, GOOD)
            until(lambda: server.metric("mtcp_queue_requests") == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.client.get("/health/ready").status_code == 503)
            assert not waiting.done()
        assert waiting.result().status_code == 200
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


HANGUP_AT_ONCE = """
import os, signal, uvicorn
from mtcp_serve.cli import main
from mtcp_serve.server.service import Service

said, reload = uvicorn.Server._log_started_message, Service.reload

def hang_up(*arguments):
    said(*arguments)
    os.kill(os.getpid(), signal.SIGHUP)

async def then_end(*arguments):
    await reload(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)

uvicorn.Server._log_started_message, Service.reload = hang_up, then_end
main()
"""
"""``mtcp-serve`` that gets a SIGHUP as it says that it runs, and a SIGTERM when it has reloaded."""


@needs_posix
def test_sighup_may_come_as_soon_as_it_says_that_it_runs(bundle: Path) -> None:
    command = [sys.executable, "-c", HANGUP_AT_ONCE, "serve", "--port", "0", "--intra-op-threads", "1"]
    ended = subprocess.run([*command, "-b", str(bundle)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode in CLEAN, ended.stderr
    assert "reloaded: tiny 7" in ended.stderr
    assert "Traceback" not in ended.stderr


@needs_linux
def test_memory_stays_bounded(server: Server) -> None:
    status = Path(f"/proc/{server.process.pid}/status")
    for _ in range(20):
        assert server.predict().status_code == 200
    kilobytes = int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    assert kilobytes < 300_000


def test_stopping_leaves_no_traceback(server: Server) -> None:
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)
