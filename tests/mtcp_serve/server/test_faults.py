"""A real server under load and under abuse: drain, reload, slow clients, and clients that hang up."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event

import httpx
import numpy as np
import pytest

from mtcp_serve.bundle.manifest import Manifest
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, STUCK, encode, make_bundle


@contextmanager
def load(server: Server, clients: int) -> Iterator[list[httpx.Response | httpx.TransportError]]:
    """Clients that send one image after the other, as long as the block lasts."""
    stop = Event()
    outcomes: list[httpx.Response | httpx.TransportError] = []

    def client() -> None:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
            while not stop.is_set():
                try:
                    outcomes.append(http.post("/predict", content=GOOD, headers=PNG))
                except httpx.TransportError as error:
                    outcomes.append(error)
                    time.sleep(0.01)

    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(client) for _ in range(clients)]
        try:
            yield outcomes
        finally:
            stop.set()
            for each in done:
                each.result()


def statuses(outcomes: list[httpx.Response | httpx.TransportError]) -> set[int]:
    return {outcome.status_code for outcome in outcomes if isinstance(outcome, httpx.Response)}


def test_sigterm_under_load_finishes_what_was_accepted(bundle: Path) -> None:
    server = Server(bundle, concurrency=1, queue_size=16, deadline_s=PATIENCE_S)
    with load(server, 4) as outcomes, ThreadPoolExecutor(4) as pool:
        until(lambda: len(outcomes) > 8)
        with ask(server, STUCK):  # has the one slot: the others wait
            until(lambda: server.metric("mtcp_queue_requests") == 4)
            accepted = [pool.submit(server.predict) for _ in range(4)]
            until(lambda: server.metric("mtcp_queue_requests") == 8)
            server.process.send_signal(signal.SIGTERM)
            with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as late:
                until(lambda: late.get("/health/ready").status_code == 503)
                response = late.post("/predict", content=GOOD, headers=PNG)
                check_error(response, 503, "draining")
                assert response.headers["retry-after"] == "1"
                check_error(late.get("/health/ready"), 503, "draining")
                assert late.get("/health/live").status_code == 200
                assert not any(each.done() for each in accepted)
        assert [each.result().status_code for each in accepted] == [200] * 4
        server.process.wait(timeout=PATIENCE_S)
    assert server.stop() in CLEAN
    assert statuses(outcomes) <= {200, 503}
    log = "".join(server.log)
    found = re.findall(r"status=(\d+)", log)
    assert set(found) == {"200", "503", "499"}
    assert found.count("499") == 1  # the stuck one: nobody else was cut off
    assert "Traceback" not in log


def test_a_killed_server_breaks_connections_and_its_successor_answers(bundle: Path) -> None:
    port = free_port()
    server = Server(bundle, port=port)
    with load(server, 2) as outcomes:
        until(lambda: len(outcomes) > 4)
        server.process.kill()
        server.stop()
        until(lambda: any(isinstance(outcome, httpx.TransportError) for outcome in outcomes))
        successor = Server(bundle, port=port)
        assert successor.url == server.url
        seen = len(outcomes)
        until(lambda: 200 in statuses(outcomes[seen:]))
    assert statuses(outcomes) == {200}
    assert successor.stop() in CLEAN


def test_reload_under_load_drops_nothing(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    manifest = Manifest.load(folder)
    server = Server(folder, queue_size=16)
    try:
        with load(server, 4) as outcomes:
            until(lambda: len(outcomes) > 8)
            manifest.model_copy(update={"version": "8"}).save(folder)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "reloaded: tiny 8" in "".join(server.log))
            seen = len(outcomes)
            until(lambda: len(outcomes) > seen + 12)
            (folder / "manifest.json").write_text("{")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: "the old bundles stay" in "".join(server.log))
            seen = len(outcomes)
            until(lambda: len(outcomes) > seen + 8)
        assert not any(isinstance(outcome, httpx.TransportError) for outcome in outcomes)
        assert statuses(outcomes) == {200}
        versions = [outcome.json()["models"][0]["version"] for outcome in outcomes]  # type: ignore[union-attr]
        assert versions[0] == "7"
        assert versions[-1] == "8"
    finally:
        assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


@pytest.fixture(scope="module")
def patient(bundle: Path) -> Iterator[Server]:
    """A server none of whose times ends while a test here lasts."""
    server = Server(
        bundle,
        concurrency=1,
        queue_size=4,
        deadline_s=PATIENCE_S,
        upload_s=PATIENCE_S,
        max_concurrent_uploads=2,
        log_format="json",
    )
    yield server
    assert server.stop() in CLEAN


def test_a_client_that_hangs_up_frees_its_slot(patient: Server) -> None:
    with patient.held():
        pass
    assert patient.predict().status_code == 200
    until(lambda: patient.metric("mtcp_client_disconnects_total") == 1)


def test_slow_clients_hold_up_nobody(patient: Server) -> None:
    with patient.connect("Content-Length: 5000") as slow, patient.connect("Content-Length: 5000") as slower:
        for connection in (slow, slower):
            connection.sendall(b"\x89")
        until(lambda: patient.metric("mtcp_uploads") == 2)
        check_error(patient.predict(), 429, "overloaded")
        assert patient.client.get("/health/ready").status_code == 200
    until(lambda: patient.predict().status_code == 200)


def test_slow_clients_are_cut_off(bundle: Path) -> None:
    server = Server(bundle, upload_s=1, max_concurrent_uploads=2)
    try:
        with (
            server.connect("Content-Length: 5000") as slow,
            server.connect("Transfer-Encoding: chunked") as slower,
        ):
            slow.sendall(b"\x89")
            slower.sendall(b"1\r\n\x89\r\n")
            answers = [b"".join(iter(partial(each.recv, 4096), b"")) for each in (slow, slower)]
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"upload_timeout" in answer
            assert b"connection: close" in answer.lower()
        until(lambda: server.metric("mtcp_uploads") == 0)
    finally:
        assert server.stop() in CLEAN


def test_many_idle_and_half_open_connections(patient: Server) -> None:
    connections = [patient.connect("Content-Length: 10") for _ in range(2)]
    for _ in range(60):
        connection = patient.connect("")
        connection.close()
        connections.append(connection)
    for connection in connections:
        connection.close()
    until(lambda: patient.predict().status_code == 200)


def test_the_log_is_json_with_request_ids(patient: Server) -> None:
    headers = PNG | {"X-Request-ID": "order-66"}
    with patient.held():
        pass
    patient.client.post("/predict?tasks=depth", content=GOOD, headers=headers)
    patient.client.post("/predict?tasks=depth", content=b"bad", headers=PNG | {"X-Request-ID": "order-67"})
    for expected in ("order-66", "order-67", '"status": 499'):
        until(lambda expected=expected: expected in "".join(patient.log))  # type: ignore[misc]
    lines = [json.loads(line) for line in patient.log if line.startswith("{")]
    good = next(line for line in lines if line.get("request_id") == "order-66")
    assert (good["method"], good["path"], good["status"]) == ("POST", "/predict", 200)
    assert set(good["stages"][0]) == {"queue", "decode", "infer", "encode"}
    assert good["ms"] > 0
    assert good["timestamp"].endswith("Z")
    bad = next(line for line in lines if line.get("request_id") == "order-67")
    assert (bad["status"], bad["code"]) == (400, "invalid_image")
    assert any(line.get("status") == 499 for line in lines)
    assert not any(line.get("path") == "/health/ready" for line in lines)


SIDE = 1000
PHOTO = encode(np.zeros((SIDE, SIDE, 3), np.uint8))
"""Its npz at input size, 22 MB, is more than sockets hold."""


def ask(server: Server, photo: bytes, query: str = "format=npz") -> socket.socket:
    """A connection on which a whole request was sent, and of whose answer nothing was read."""
    connection = server.connect(f"Content-Length: {len(photo)}\r\nConnection: close", query)
    connection.sendall(photo)
    return connection


def drip(server: Server) -> bytes:
    """What a client is answered that sends ten bytes a second."""
    with server.connect("Content-Length: 5000") as connection:
        connection.settimeout(0.1)
        while True:
            connection.sendall(b"x")
            with suppress(TimeoutError):  # no answer yet
                return connection.recv(1000)


def test_under_load_clients_drip_hang_up_and_do_not_read(bundle: Path) -> None:
    """Good clients are answered 200 beside all of them, and nothing is left of the others afterwards."""
    server = Server(
        bundle, concurrency=2, queue_size=16, deadline_s=PATIENCE_S, upload_s=5, max_concurrent_uploads=32
    )
    try:
        with load(server, 3) as outcomes, ThreadPoolExecutor(2) as pool, ExitStack() as unread:
            until(lambda: len(outcomes) > 3)
            dripping = [pool.submit(drip, server) for _ in range(2)]
            for _ in range(3):
                unread.enter_context(ask(server, PHOTO))
            until(lambda: server.metric("mtcp_responses") == 3)
            for _ in range(3):
                with closing(server.connect("Content-Length: 5000")) as hangs_up:
                    hangs_up.sendall(GOOD[:50])
                with closing(ask(server, STUCK)):
                    until(lambda: server.metric("mtcp_running_requests") > 0)
                with closing(ask(server, PHOTO)) as starts_to_read:
                    assert starts_to_read.recv(1000).startswith(b"HTTP/1.1 200 ")
            for client in dripping:
                assert client.result().startswith(b"HTTP/1.1 408 ")
            seen = len(outcomes)
            until(lambda: len(outcomes) > seen + 6)
        assert not any(isinstance(outcome, httpx.TransportError) for outcome in outcomes)
        assert statuses(outcomes) == {200}
        for name in ("queue_requests", "running_requests", "uploads", "answers"):
            until(lambda name=name: server.metric(f"mtcp_{name}") == 0)  # type: ignore[misc]
        assert server.predict().status_code == 200
    finally:
        assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def test_answers_that_nobody_reads_are_bounded(patient: Server) -> None:
    with ask(patient, PHOTO) as first, ask(patient, PHOTO):
        until(lambda: patient.metric("mtcp_responses") == 2)
        response = patient.predict()
        check_error(response, 429, "overloaded")
        assert "responses" in response.json()["error"]["message"]
        answer = b"".join(iter(partial(first.recv, 2**20, socket.MSG_WAITALL), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()
        with np.load(BytesIO(body)) as maps:
            assert maps["depth"].shape == (SIDE, SIDE)
    until(lambda: patient.predict().status_code == 200)
