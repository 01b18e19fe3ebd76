"""Cameras, the web and addresses: what comes out, how they end, and what may not be connected to."""

import asyncio
import json
import signal
import ssl
import struct
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

import av
import pytest
import trustme

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.images import DEFAULT_LIMITS
from mtcp_serve.inference.registry import Models
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.live import Live, LiveError, connect, reader
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.live.connect import is_public
from mtcp_serve.offline.live.reader import LiveReader, open_camera
from mtcp_serve.offline.runner import predict_files
from mtcp_serve.offline.video import Layer, VideoOptions
from mtcp_serve.offline.video.clock import Clock
from mtcp_serve.offline.writer import OutputRequest
from tests.mtcp_serve import command
from tests.mtcp_serve.cli.test_cli import run
from tests.mtcp_serve.clips import picture, read_clip, write_clip
from tests.mtcp_serve.offline.rtsp_server import rtsp_server
from tests.mtcp_serve.offline.web_server import WebServer, sized
from tests.mtcp_serve.process import until
from tests.mtcp_serve.support import GOOD, encode


@pytest.fixture(scope="module")
def web(transport_stream: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    clip = write_clip(tmp_path_factory.mktemp("web") / "clip.mp4", list(range(6))).read_bytes()
    frames = [encode(picture(number), "JPEG") for number in range(9)]
    parts = [b"--next\r\nContent-Type: image/jpeg\r\n\r\n" + frame + b"\r\n" for frame in frames]
    server = WebServer(
        {
            "/photo.png": sized(GOOD),
            "/clip.mp4": sized(clip),
            "/live.ts": (200, {}, transport_stream),
            "/mjpeg": (200, {"Content-Type": "multipart/x-mixed-replace; boundary=next"}, b"".join(parts)),
            "/moved": (302, {"Location": "/photo.png"}, b""),
            "/inside": (302, {"Location": "http://127.0.0.2/secret"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/loop": (302, {"Location": "/loop"}, b""),
            "/late.mp4": (200, {}, _with_a_late_index(clip)),
            "/gone": (404, {}, b""),
            "/short.mp4": (200, {"Content-Length": str(2 * len(clip))}, clip),
            "/large.mp4": (200, {"Content-Length": str(2**40)}, clip),
            "/page.html": sized(b"<html>no picture</html>"),
            "/playlist.m3u8": (200, {}, b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.2/secret.ts\n#EXT-X-ENDLIST\n"),
        }
    )
    yield server
    server.close()


def _with_a_late_index(clip: bytes) -> bytes:
    """``clip``, an MP4 whose index is last, with more before that than a reader that cannot seek keeps."""
    size, start = 2**20, clip.index(b"moov") - 4
    return clip[:start] + struct.pack(">I4s", size, b"free") + bytes(size - 8) + clip[start:]


def test_a_picture_and_a_video_of_the_web(web: WebServer, bundle: Path, tmp_path: Path) -> None:
    arguments = ["-o", tmp_path, "-b", bundle, "--video", "saliency", "--allow-private"]
    done = run("predict", f"{web.url}/photo.png?key=secret", f"{web.url}/clip.mp4", *arguments)
    assert done.exit_code == 0, done.output
    assert "secret" not in done.output
    assert json.loads((tmp_path / "photo" / "metadata.json").read_text())["made_from"]["source"]["file"]
    assert len(read_clip(tmp_path / "clip" / "saliency.mp4")[0]) == 6
    again = run("predict", f"{web.url}/photo.png", f"{web.url}/clip.mp4", *arguments)
    assert "2 were complete before" in again.stderr


def test_redirects_are_followed_and_logins_sent(web: WebServer, bundle: Path, tmp_path: Path) -> None:
    address = web.url.replace("//", "//ann:p%40ss@") + "/moved"
    done = run("predict", address, "-o", tmp_path, "-b", bundle, "--tasks", "depth", "--allow-private")
    assert done.exit_code == 0, done.output
    assert "p%40ss" not in done.output
    assert (tmp_path / "moved" / "depth.png").exists()
    first, second = web.asked[-2:]
    assert (first["path"], second["path"]) == ("/moved", "/photo.png")
    assert first["Authorization"] == second["Authorization"] == "Basic YW5uOnBAc3M="  # the same host


@pytest.mark.parametrize("path", ["/live.ts", "/mjpeg"])
def test_a_stream_of_the_web(web: WebServer, bundle: Path, tmp_path: Path, path: str) -> None:
    done = run("predict", web.url + path, "-o", tmp_path, "-b", bundle, "--tasks", "depth", "--allow-private")
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.iterdir()
    whole = json.loads((folder / "frames" / "metadata.json").read_text())
    assert whole["made_from"]["source"]["stream"] == web.url + path
    names = sorted(each.name for each in (folder / "frames").iterdir() if each.is_dir())
    assert whole["response"]["frames"] == len(names) >= 1
    last = json.loads((folder / "frames" / names[-1] / "metadata.json").read_text())
    assert last["response"]["image"]["width"] == 64
    if len(names) < int(names[-1]) + 1:
        assert "were skipped for newer ones" in done.stderr
        assert ("it was taken for a live stream" in " ".join(done.stderr.split())) == (path == "/live.ts")
    again = run("predict", web.url + path, "-o", tmp_path, "-b", bundle, "--allow-private")
    assert again.exit_code == 1
    assert "has results already: keep them by another --out" in again.stderr


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/file", "file: addresses are not read; those of http, https, rtsp, rtsps are"),
        ("/loop", "redirects more than 5 times"),
        ("/gone", "/gone: it answers 404"),
        ("/short.mp4", "the connection was lost after"),
        ("/large.mp4", "the limit of a video is 2147483648"),
        ("/late.mp4", "the stream was lost before the first frame: "),
        (
            "/late.mp4",
            "no length, so it was taken for a live stream; download it and give the file",
        ),
        ("/page.html", "not a video that can be read"),
        ("/playlist.m3u8", "is not a picture, nor a video that can be read as it comes"),
    ],
)
def test_what_the_web_does_not_have(
    web: WebServer, bundle: Path, tmp_path: Path, path: str, message: str
) -> None:
    done = run("predict", web.url + path, "-o", tmp_path / "out", "-b", bundle, "--allow-private")
    assert done.exit_code == 1
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_only_public_addresses_unless_allowed(
    web: WebServer, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = len(web.asked)
    for address in (
        f"{web.url}/photo.png",
        "rtsp://localhost/cam",
        f"http://0x7f000001:{web.port}/photo.png",
    ):
        done = run("predict", address, "-o", tmp_path, "-b", bundle)
        assert done.exit_code == 1
        assert "is not a public address; --allow-private reads it all the same" in " ".join(
            done.stderr.split()
        )
    assert len(web.asked) == asked
    monkeypatch.setattr(connect, "is_public", "127.0.0.1".__eq__)  # 127.0.0.2 is then still private
    done = run("predict", f"{web.url}/photo.png", "-o", tmp_path, "-b", bundle)
    assert done.exit_code == 0, done.output
    done = run("predict", f"{web.url}/inside", "-o", tmp_path, "-b", bundle)
    assert done.exit_code == 1
    assert "it redirects to http://127.0.0.2/secret: 127.0.0.2 is not a public" in " ".join(
        done.stderr.split()
    )


@pytest.mark.parametrize(
    ("number", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # where clouds keep credentials
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
    ],
)
def test_which_addresses_are_public(number: str, public: bool) -> None:
    assert is_public(number) is public


def test_a_certificate_that_nobody_trusts_is_refused(bundle: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = WebServer({"/photo.png": sized(GOOD)}, context)
    try:
        done = run("predict", f"{server.url}/photo.png", "-o", tmp_path, "-b", bundle, "--allow-private")
    finally:
        server.close()
    assert done.exit_code == 1
    assert "it cannot be reached: unable to get local issuer certificate" in " ".join(done.stderr.split())
    assert server.asked == []


def test_a_video_of_so_many_seconds(transport_stream: bytes, bundle: Path, tmp_path: Path) -> None:
    with rtsp_server(transport_stream) as server:
        options = ["--seconds", "0.1", "--video", "depth", "--allow-private"]
        done = run("predict", server.url, "-o", tmp_path, "-b", bundle, *options)
    assert done.exit_code == 0, done.output
    times, _ = read_clip(tmp_path / "clip" / "depth.mp4")
    assert times[0] == 0  # wherever in the stream the first frame was that was taken
    assert times[-1] < 0.1
    with av.open(str(tmp_path / "clip" / "depth.mp4")) as film:
        stream = film.streams.video[0]
        assert float((stream.duration or 0) * (stream.time_base or 0)) == pytest.approx(times[-1] + 0.04)


class _Loop:
    """A broadcaster that sends the same again and again."""

    def __init__(self, data: bytes) -> None:
        self._parts = cycle([data])
        self._over = False

    def read(self, count: int) -> bytes:
        return b"" if self._over else next(self._parts)[:count]

    def close(self) -> None:
        self._over = True


def test_a_stream_whose_clock_stands_still_ends(
    transport_stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this machine's clock, ten seconds later."""
    monkeypatch.setattr(reader, "monotonic", count(0, 600).__next__)
    monkeypatch.setattr(Clock, "shown", lambda self, index, stamp: index)  # a tick a frame
    body, live = _Loop(transport_stream), Live(seconds=1195, frames=50)
    with LiveReader(av.open(body, "r"), DEFAULT_LIMITS, live, body.close) as stream:
        assert len(list(stream.frames())) == 3


def test_interrupted_it_keeps_what_was_written(transport_stream: bytes, bundle: Path, tmp_path: Path) -> None:
    """Frame by frame by a signal to the command; a rendered video by what the signal sets."""
    frames = tmp_path / "clip" / "frames"
    with rtsp_server(transport_stream, endless=True) as server:
        process = command.start(
            server.url, "-o", tmp_path, "-b", bundle, "--tasks", "depth", "--no-arrays", "--allow-private"
        )
        until(lambda: any(frames.glob("*/metadata.json")) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        code, said = command.finish(process)
    assert code == 130, said
    assert "interrupted: 1 done" in said
    whole = json.loads((frames / "metadata.json").read_text())
    assert whole["response"]["frames"] == len([*frames.glob("0*")]) >= 1
    assert all((frames / name).is_file() for name in whole["files"])


def test_an_interrupted_video_is_whole(transport_stream: bytes, bundle: Path, tmp_path: Path) -> None:
    live = Live(allow_private=True)
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        if done == 3:
            live.stop.set()

    async def record(url: str) -> list[str | None]:
        models = Models([Batcher(load_engine(Bundle.open(bundle)))])
        choices = models.select(["depth"])
        requested = OutputRequest(choices, video=VideoOptions((Layer(choices[0]),)))
        item = Item(Path("clip"), tmp_path / "clip", Address(url))
        outcomes = predict_files([item], requested, DEFAULT_LIMITS, progress, live)
        return [outcome.error async for outcome in outcomes]

    with rtsp_server(transport_stream, endless=True) as server:
        assert asyncio.run(record(server.url)) == [None]
    assert len(read_clip(tmp_path / "clip" / "depth.mp4")[0]) == len(seen) == 3
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_camera_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    done = run("predict", "camera:99", "-o", tmp_path / "out", "-b", bundle)
    assert done.exit_code == 1
    assert "camera:99: there is no camera /dev/video99; this machine has" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "no permission to use /dev/video0; on Linux its group"),
        (OSError(16, "Device or resource busy"), "/dev/video0 is in use by another program"),
        (av.error.ExitError(1, "Immediate exit requested"), "cannot be used (nothing came for 10 s)"),
        (ValueError("no container format 'v4l2'"), "cannot be used (no container format 'v4l2')"),
    ],
)
def test_a_camera_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(LiveError) as caught:
        open_camera(Address("camera:0"), DEFAULT_LIMITS, Live())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://example.com/a.png"], "ftp: addresses are not read"),
        (["camera:"], "camera:0 is the first"),
        (["http:///a.png"], "has no host"),
        (["rtsp://example.com:99999/a"], "Port out of range"),
        (["http://[::1/a.png"], "Invalid IPv6 URL"),
        (["http://a.example/x.png", "http://b.example/x.png"], "would overwrite each other"),
        (["--frames", "3", __file__], "--frames, --seconds and --allow-private are for cameras"),
    ],
)
def test_what_cannot_be_an_input(bundle: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run("predict", *arguments, "-o", tmp_path / "out", "-b", bundle)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("text", "stem", "shown"),
    [
        ("camera:0", "camera-0", "camera:0"),
        ("https://u:p@a.example/pics/My%20cat.jpg?t=1", "My-cat", "https://a.example/pics/My%20cat.jpg"),
        ("rtsp://10.0.0.7:8554/", "10.0.0.7", "rtsp://10.0.0.7:8554/"),
        ("http://[::1]:80/../../etc", "etc", "http://[::1]:80/../../etc"),
        ("http://a.example/..", "a.example", "http://a.example/.."),
    ],
)
def test_what_results_are_called(text: str, stem: str, shown: str) -> None:
    assert (Address(text).stem, Address(text).shown) == (stem, shown)
