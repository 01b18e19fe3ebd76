"""RTSP through the relay: what comes out of it, TLS, and what it does not pass on."""

import select
import socket
import ssl
from pathlib import Path

import numpy as np
import pytest

from mtcp_serve.offline.live import SILENCE_S, LiveError
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.live.rtsp import RtspRelay, message_size
from tests.mtcp_serve.cli.test_cli import run
from tests.mtcp_serve.offline.rtsp_server import rtsp_server
from tests.mtcp_serve.offline.web_server import WebServer, sized
from tests.mtcp_serve.process import PATIENCE_S, until
from tests.mtcp_serve.support import GOOD


def test_through_tls(transport_stream: bytes, bundle: Path, tmp_path: Path, trusted: ssl.SSLContext) -> None:
    server = WebServer({"/photo.png": sized(GOOD)}, trusted)
    options = ["-o", tmp_path, "-b", bundle, "--tasks", "depth", "--allow-private"]
    try:
        done = run("predict", f"{server.url}/photo.png", *options)
    finally:
        server.close()
    assert done.exit_code == 0, done.output
    with rtsp_server(transport_stream, endless=True, tls=trusted) as stream:
        assert stream.url.startswith("rtsps://")
        done = run("predict", stream.url, *options, "--frames", "2")
    assert done.exit_code == 0, done.output
    assert len([*(tmp_path / "clip" / "frames").glob("0*")]) == 2


def test_what_tls_says_for_itself_holds_nothing_up(transport_stream: bytes, trusted: ssl.SSLContext) -> None:
    """A session's tickets make a connection readable before anything has been asked."""
    with (
        rtsp_server(transport_stream, tls=trusted) as server,
        RtspRelay(Address(server.url), allow_private=True) as relay,
    ):
        until(lambda: bool(select.select([relay._server], [], [], 0)[0]))
        host, port = relay.url.removeprefix("rtsp://").partition("/")[0].split(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as client:
            client.settimeout(SILENCE_S / 2)
            assert select.select([client], [], [], 0.2)[0] == []  # the relay has met the tickets
            client.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            assert client.recv(1000).startswith(b"RTSP/1.0 200 OK")


def test_rtsp(transport_stream: bytes, bundle: Path, tmp_path: Path) -> None:
    with rtsp_server(transport_stream, endless=True) as server:
        options = ["--frames", "3", "--tasks", "saliency", "--allow-private"]
        done = run("predict", server.url, "-o", tmp_path, "-b", bundle, *options)
    assert done.exit_code == 0, done.output
    assert [request.split()[0] for request in server.asked[:4]] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    frames = sorted(path for path in (tmp_path / "clip" / "frames").iterdir() if path.is_dir())
    assert len(frames) == 3
    with np.load(frames[0] / "maps.npz") as maps:
        assert maps["saliency"].shape == (48, 64)
        assert maps["saliency"][4:10, 4:14].mean() == pytest.approx(1, abs=0.02)  # the red corner


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"DESCRIBE": "RTSP/1.0 302 Moved\r\nLocation: rtsp://127.0.0.2/inside"},
            "it redirects (302 Moved); name the address that it redirects to",
        ),
        ({"DESCRIBE": 'RTSP/1.0 401 No\r\nWWW-Authenticate: Basic realm="x"'}, "401 Unauthorized"),
        ({"DESCRIBE": "RTSP/1.0 404 Not Found"}, "404 Not Found"),
        (
            {"OPTIONS": f"RTSP/1.0 200 OK\r\nContent-Length: 9000000\r\n\r\n{' ' * 2_000_000}"},
            "the server sends a message of more than 1048576 bytes",
        ),
    ],
)
def test_rtsp_that_gives_nothing(
    transport_stream: bytes, bundle: Path, tmp_path: Path, answers: dict[str, str], message: str
) -> None:
    with rtsp_server(transport_stream, answers) as server:
        done = run("predict", server.url, "-o", tmp_path / "out", "-b", bundle, "--allow-private")
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_redirect_hidden_behind_a_frame_is_seen() -> None:
    frame = b"$\x00\x00\x04abcd"
    answer = b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    data = bytearray(frame + answer + b"RTSP/1.0 301 Moved\r\n\r\n")
    assert message_size(data, 0) == len(frame)
    assert message_size(data, len(frame)) == len(answer)
    assert message_size(data, len(frame + answer)) == 22
    for cut in range(len(frame)):
        assert message_size(data[:cut], 0) is None
    assert message_size(bytearray(b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhell"), 0) is None
    with pytest.raises(LiveError, match="no RTSP"):
        message_size(bytearray(70_000), 0)


def test_the_relay_passes_the_login_on_and_nobody_else() -> None:
    with (
        rtsp_server(b"") as server,
        RtspRelay(Address(server.url.replace("//", "//ann:p%40ss@")), allow_private=True) as relay,
    ):
        assert relay.url.startswith("rtsp://ann:p%40ss@127.0.0.1:")
        assert relay.url.endswith("/cam/clip.ts")
