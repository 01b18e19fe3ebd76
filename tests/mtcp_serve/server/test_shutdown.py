"""How a server ends: at work until balancers know, then draining, and never later than it says."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from itertools import takewhile
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, STUCK
from tests.needs import needs_posix

HANGING = """
import threading
from mtcp_serve.cli import main
from mtcp_serve.inference import pipeline

pipeline._read = lambda *arguments: threading.Event().wait()
main()
"""
"""``mtcp-serve`` whose decoding never ends, in a thread that nobody can stop."""
IN_A_PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from mtcp_serve.server.app import create_app
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.process import Server
from mtcp_serve.server.settings import Settings

class Ended(Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *_: None)
settings = Settings(bundle=(Path(sys.argv[1]),), port=0, intra_op_threads=1)
Ended(create_app(settings, load_engines(settings)), settings).run()
timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
print("still ticking:", sum(not timer.finished.is_set() for timer in timers))
"""
"""A program that goes on when the server that it ran has ended."""
SIGNALLED = """
import os, signal, sys
from pathlib import Path
from mtcp_serve.server.app import create_app
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.logging import configure_logging
from mtcp_serve.server.process import Server
from mtcp_serve.server.settings import Settings

configure_logging("info", "json")
settings = Settings(bundle=(Path(sys.argv[1]),), port=int(sys.argv[2]), intra_op_threads=1)
app = create_app(settings, load_engines(settings))

@app.get("/signals/{count}")
async def signals(count: int) -> None:
    for _ in range(count):
        os.kill(os.getpid(), signal.SIGTERM)

Server(app, settings).run()
"""
"""A server whose signals come in the midst of a request."""
KILLED = (-signal.SIGTERM, 128 + signal.SIGTERM)


@contextmanager
def hanging(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A server of `HANGING`, its address and the lines of its log."""
    serve = ["serve", "--port", "0", "--intra-op-threads", "1", "--bundle", str(bundle), *options]
    command = [sys.executable, "-c", HANGING, *serve]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log: list[str] = []
        for line in process.stderr:
            log.append(line)
            if "running on http://" in line:
                break
        url = log[-1].split("running on ")[1].split(" ")[0]
        reader = threading.Thread(target=log.extend, args=(process.stderr,))
        reader.start()
        try:
            yield process, url, log
        finally:
            process.kill()
            process.wait()
            reader.join()


def ask(url: str) -> httpx.Response:
    return httpx.post(f"{url}/predict", content=GOOD, headers=PNG, timeout=PATIENCE_S)


def closed(stream: ClientConnection) -> tuple[int, str]:
    """How the server closes a stream that nothing more comes over: code and reason."""
    with pytest.raises(ConnectionClosed) as end:
        stream.recv(PATIENCE_S)
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


def test_slots_that_never_come_back_make_the_server_unready(bundle: Path) -> None:
    with hanging(bundle, "--concurrency", "2", "--deadline-s", "0.5") as (_, url, _):
        check_error(ask(url), 504, "deadline_exceeded")
        assert "mtcp_overdue_requests 1.0" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/health/ready").status_code == 200  # the other slot works
        check_error(ask(url), 504, "deadline_exceeded")
        error = check_error(httpx.get(f"{url}/health/ready"), 503, "not_ready")
        assert error["message"] == "2 requests are past their deadline and still hold every slot"
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{url}/health/live").status_code == 200
        assert "mtcp_ready 0.0" in httpx.get(f"{url}/metrics").text


def test_a_stream_that_a_stuck_server_closes_is_told_why(bundle: Path) -> None:
    with hanging(bundle, "--concurrency", "1", "--deadline-s", "0.5") as (_, url, _):
        check_error(ask(url), 504, "deadline_exceeded")
        error = check_error(httpx.get(f"{url}/health/ready"), 503, "not_ready")
        assert error["message"] == "1 request is past its deadline and still holds every slot"
        with connect(f"{url.replace('http', 'ws')}/stream") as stream:
            assert closed(stream) == (1001, error["message"])


@needs_posix
def test_draining_has_an_end(bundle: Path) -> None:
    with hanging(bundle, "--drain-s", "0.5") as (process, url, log), ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(ask, url)
        until(lambda: "mtcp_running_requests 1.0" in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) in KILLED
        with pytest.raises(httpx.TransportError):
            cut_off.result()
    assert "draining took more than 0.5 s: what is not done is cut off" in "".join(log)


@needs_posix
def test_a_second_signal_ends_the_process_at_once(bundle: Path) -> None:
    with hanging(bundle, "--drain-s", "3600") as (process, url, log), ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(ask, url)
        until(lambda: "mtcp_running_requests 1.0" in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{url}/health/ready").status_code == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) in KILLED
        with pytest.raises(httpx.TransportError):
            cut_off.result()
    assert "a second signal" in "".join(log)


@needs_posix
def test_requests_are_taken_until_balancers_know(bundle: Path) -> None:
    """For as long as `shutdown_delay_s`, here an hour; a second signal cuts it short."""
    server = Server(bundle, shutdown_delay_s=3600)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: server.client.get("/health/ready").status_code == 503)
    check_error(server.client.get("/health/ready"), 503, "draining")
    refused = server.client.post("/predict?tasks=nothing", content=GOOD, headers=PNG)
    for response, status in ((server.predict(), 200), (refused, 404), (server.client.get("/metrics"), 200)):
        assert response.status_code == status
        assert response.headers.get_list("connection") == ["close"], "who has a connection is to leave it"
    server.process.send_signal(signal.SIGTERM)
    assert server.stop() in KILLED
    assert "Traceback" not in "".join(server.log)


@needs_posix
def test_after_that_it_drains(bundle: Path) -> None:
    server = Server(bundle, shutdown_delay_s=0.5, concurrency=1, deadline_s=PATIENCE_S)
    with ThreadPoolExecutor(1) as pool:
        with server.connect(f"Content-Length: {len(STUCK)}") as stuck:
            stuck.sendall(STUCK)
            until(lambda: server.metric("mtcp_running_requests") == 1)
            waiting = pool.submit(server.predict, GOOD)
            until(lambda: server.metric("mtcp_queue_requests") == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: server.predict(b"").status_code == 503)
            assert not waiting.done()
        assert waiting.result().status_code == 200
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


@needs_posix
def test_whoever_keeps_a_connection_is_not_refused_on_it(bundle: Path) -> None:
    """One that is idle is closed before new work is refused; one that is not ends with its response."""
    server = Server(bundle, shutdown_delay_s=0.5, concurrency=1, deadline_s=PATIENCE_S)
    port = server.client.base_url.port or 0
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as idle,
        server.connect(f"Content-Length: {len(STUCK)}") as stuck,
    ):
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        alive = HTTPResponse(idle)
        alive.begin()
        assert (alive.read() != b"", alive.getheader("connection")) == (True, None)
        stuck.sendall(STUCK)
        until(lambda: server.metric("mtcp_running_requests") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b"", "closed, while the server still drains"
        assert server.process.poll() is None
        check_error(httpx.post(f"{server.url}/predict", content=GOOD, headers=PNG), 503, "draining")
    assert server.stop() in CLEAN


@needs_posix
def test_streams_are_told_that_the_server_stops(bundle: Path) -> None:
    """One that is idle at once, one whose frame is worked on when that has been answered."""
    server = Server(bundle, concurrency=1, deadline_s=PATIENCE_S)
    address = f"{server.url.replace('http', 'ws')}/stream?tasks=depth&size=model"
    with (
        connect(address) as idle,
        connect(address) as busy,
        server.connect(f"Content-Length: {len(STUCK)}") as stuck,
    ):
        stuck.sendall(STUCK)
        until(lambda: server.metric("mtcp_running_requests") == 1)
        busy.send(GOOD)
        until(lambda: server.metric("mtcp_queue_requests") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert closed(idle) == (1001, "the server is shutting down")
        assert server.process.poll() is None, "the other one is still to be answered"
        stuck.close()
        assert isinstance(busy.recv(PATIENCE_S), bytes)
        assert closed(busy) == (1001, "the server is shutting down")
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


@needs_posix
@pytest.mark.parametrize(("signals", "said"), [(1, "draining: new requests"), (2, "a second signal:")])
def test_what_is_logged_of_the_end_is_of_no_request(bundle: Path, signals: int, said: str) -> None:
    port = free_port()
    command = [sys.executable, "-c", SIGNALLED, str(bundle), str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log = list(takewhile(lambda line: "running on http://" not in line, process.stderr))
        with suppress(httpx.TransportError):  # the second one ends the server before it has answered
            httpx.get(
                f"http://127.0.0.1:{port}/signals/{signals}",
                headers={"X-Request-ID": "of-a-request"},
                timeout=PATIENCE_S,
            )
        log += process.stderr
    lines = [json.loads(line) for line in log]
    (line,) = (line for line in lines if line["event"].startswith(said))
    assert "request_id" not in line
    if signals == 1:
        (line,) = (line for line in lines if line.get("request_id") == "of-a-request")
        assert line["event"] == "request"


@needs_posix
def test_a_program_that_outlives_its_server_is_not_ended_later(bundle: Path) -> None:
    """What ends a server that does not end by itself is called off when it has."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_PROGRAM, str(bundle)], capture_output=True, text=True, check=True
    )
    assert "still ticking: 0" in ended.stdout
