"""The HTTP clients against a real gateway process."""

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from clients.examples import http_predict
from mtcp_serve.clients import (
    AsyncGatewayClient,
    ClientError,
    DeadlineError,
    GatewayClient,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    Prediction,
    ServerError,
    UnavailableError,
)
from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.outputs.cutout import cutout
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.server.test_refine import IMAGE, PIXELS
from tests.mtcp_serve.support import GOOD, HEIGHT, STUCK, WIDTH, encode, noise
from tests.needs import needs_command, needs_curl

EXAMPLES = Path(http_predict.__file__).parent
MEAN = noise(HEIGHT, WIDTH).astype(np.float64).mean(-1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway that works on one request, keeps one waiting, and answers within two seconds."""
    bundle = make_confident_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mtcp_serve", "serve", "-b", str(bundle), "--port", str(port)]
    limits = ["--intra-op-threads", "1", "--concurrency", "1", "--queue-size", "1", "--deadline-s", "2"]
    with (
        subprocess.Popen([*command, *limits]) as process,
        GatewayClient(f"http://127.0.0.1:{port}") as client,
    ):
        while True:
            assert process.poll() is None, "the gateway ended"
            try:
                client.models()
                break
            except UnavailableError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[GatewayClient]:
    with GatewayClient(url) as client:
        yield client


@pytest.mark.parametrize(("format", "millimetres"), [("npz", 0.001), ("json", 0.51)])
def test_maps_and_what_they_mean(client: GatewayClient, format: str, millimetres: float) -> None:
    answer = client.predict(GOOD, format=format)  # type: ignore[arg-type]
    assert list(answer) == ["semseg", "depth", "normals", "saliency", "parsing"]
    assert 1000 * np.abs(answer["depth"] - MEAN / 25.5).max() <= millimetres
    pixels = noise(HEIGHT, WIDTH)
    np.testing.assert_array_equal(answer["semseg"], (MEAN >= 85).astype(np.uint8) + (MEAN >= 170))
    np.testing.assert_allclose(answer["saliency"], pixels[..., 0] / 255, atol=1e-6)
    direction = pixels / 127.5 - 1
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    assert np.abs(answer["normals"] - direction).max() < 0.012  # 8 bits a component in JSON
    for name, values in answer.items():
        assert values.dtype == (np.uint8 if name in ("semseg", "parsing") else np.float32)
    assert answer.about("depth")["unit"] == "m"
    assert [label["name"] for label in answer.about("semseg")["labels"]] == ["dark", "medium", "bright"]
    assert "png" not in answer.about("depth")
    assert answer.metadata["models"][0]["version"] == "7"


def test_maps_and_cut_outs_along_the_edges_of_the_image(client: GatewayClient, url: str) -> None:
    async def ask() -> Prediction:
        async with AsyncGatewayClient(url) as other:
            return await other.predict(IMAGE, ["saliency"], refine=True)

    refined = client.predict(IMAGE, ["saliency", "depth"], refine=True)
    assert refined.about("depth")["resampled"] == "guided"
    assert np.array_equal(asyncio.run(ask())["saliency"], refined["saliency"])
    server = np.asarray(Image.open(BytesIO(client.download(IMAGE, "cutout")))).astype(int)
    plain = client.predict(IMAGE, ["saliency"])
    assert np.array_equal(np.asarray(refined.cutout()), server)
    assert np.abs(np.asarray(plain.cutout())[..., 3] - server[..., 3]).mean() < 2  # of an enlarged map
    saliency = plain["saliency"].astype(np.float32)
    assert np.array_equal(np.asarray(plain.cutout(refine=False)), cutout(PIXELS, saliency))
    with pytest.raises(InvalidRequestError, match="size is model"):
        client.predict(IMAGE, size="model", refine=True)


@needs_curl
def test_curl_sends_all_of_them_as_a_field(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    fields = ["-F", "image=@a.png", "-F", "tasks=depth", "-F", "distances=80,60,12.5,10,10,5"]
    done = subprocess.run(
        ["curl", "-fsS", *fields, f"{url}/predict"], cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["maps"]["depth"]["measured"]["points"] == 2


def test_known_distances_however_many(client: GatewayClient, url: str) -> None:
    async def ask() -> Prediction:
        async with AsyncGatewayClient(url) as other:
            return await other.predict(IMAGE, ["depth"], distances=known)

    for known in [(80, 60, 12.5), (10, 10, 5)], np.stack([*np.indices((60, 50)), np.full((60, 50), 3)], -1):
        known = np.reshape(known, (-1, 3))
        found = client.predict(IMAGE, ["depth"], distances=known, camera=CameraRequest(fov_x=70))
        assert found.about("depth")["measured"]["points"] == len(known)
        assert found.metadata["image"]["camera"]["source"] == "request"
        np.testing.assert_array_equal(asyncio.run(ask())["depth"], found["depth"])
    with pytest.raises(InvalidRequestError, match="pixels"):
        client.predict(IMAGE, ["depth"], distances=[(500, 0, 1)])
    with pytest.raises(InvalidRequestError, match="not triples"):
        client.predict(IMAGE, ["depth"], distances=[(500, 0)])


@pytest.mark.parametrize(("format", "off"), [("npz", 1e-6), ("json", 0.5 / 255 + 1e-6)])
def test_how_sure_it_is(client: GatewayClient, url: str, format: Any, off: float) -> None:
    wanted = expected_confidences(noise(HEIGHT, WIDTH)[None])["depth"][0]
    maps = client.predict(GOOD, ["depth", "saliency"], format=format, confidence=True)

    async def ask() -> Prediction:
        async with AsyncGatewayClient(url) as other:
            return await other.predict(GOOD, ["depth"], format=format, confidence=True)

    for found in (maps, asyncio.run(ask())):
        assert np.abs(found.confidence("depth") - wanted).max() <= off
    assert "png" not in maps.about("depth")["confidence"]
    assert maps.metadata["without_confidence"] == ["saliency"]
    with pytest.raises(InvalidRequestError, match="does not say how sure it is"):
        client.predict(GOOD, ["saliency"], confidence=True)


def test_files_tasks_and_sizes(client: GatewayClient, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(noise(50, 70), "JPEG"))
    assert client.predict(path, tasks=["depth"])["depth"].shape == (50, 70)
    answer = client.predict(str(path), tasks=["parsing", "depth"], size="model", model="tiny")
    assert list(answer) == ["parsing", "depth"]
    assert answer["depth"].shape == (HEIGHT, WIDTH)
    assert client.models()[0]["name"] == "tiny"


def test_maps_of_the_models_size_lie_over_a_jpeg_beyond_the_limit(client: GatewayClient) -> None:
    data = encode(Image.new("RGB", (6000, 5600), (200, 40, 90)), "JPEG")
    under = client.predict(data, ["depth"], size="model").overlay("depth", 0)
    assert under.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(under).astype(int) - (200, 40, 90)).max() <= 2


@pytest.mark.parametrize(
    ("camera", "fx"),
    [
        (CameraRequest(focal_px=77), 77),
        (CameraRequest(fov_x=90), WIDTH / 2),
        (CameraRequest(intrinsics=(7.5, 8, 9, 10)), 7.5),
    ],
)
def test_the_camera_goes_along_and_the_points_come_back(
    client: GatewayClient, camera: CameraRequest, fx: float
) -> None:
    maps = client.predict(GOOD, camera=camera)
    found = maps.metadata["image"]["camera"]
    assert (found["fx"], found["source"]) == (fx, "request")
    positions = maps.points().positions.reshape(HEIGHT, WIDTH, 3)
    across = (np.arange(WIDTH) - found["cx"]) / fx
    assert positions[..., 0] == pytest.approx(-across * positions[..., 2], rel=1e-5, abs=1e-6)
    parameters: dict[str, Any] = {**camera.query()}
    assert client.download(GOOD, "ply", **parameters).startswith(b"ply")


def test_asyncio_gives_the_same(client: GatewayClient, url: str) -> None:
    async def predict() -> Prediction:
        async with AsyncGatewayClient(url) as other:
            assert await other.models() == client.models()
            with pytest.raises(NotFoundError):
                await other.predict(GOOD, tasks=["depht"])
            return await other.predict(GOOD, tasks=["depth"])

    np.testing.assert_array_equal(asyncio.run(predict())["depth"], client.predict(GOOD)["depth"])


def test_a_forked_child_opens_connections_of_its_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that parent and child share, each reads what was meant for the other."""
    with GatewayClient(url) as client:
        client.models()
        parents, pid = client._client, os.getpid()
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: pid + 1)
            assert client.models()
            assert client._client is not parents
            assert not parents.is_closed
            client.close()
        parents.close()


def test_errors_are_typed_and_say_what_to_do(client: GatewayClient, tmp_path: Path) -> None:
    for options, kind, code in (
        ({"image": b"no image"}, InvalidRequestError, "invalid_image"),
        ({"image": GOOD, "tasks": ["depht"]}, NotFoundError, "unknown_task"),
        ({"image": GOOD, "model": "nobody"}, NotFoundError, "unknown_model"),
        ({"image": GOOD, "size": "huge"}, InvalidRequestError, "invalid_parameter"),
        ({"image": b"x" * 30_000_000}, InvalidRequestError, "payload_too_large"),
    ):
        with pytest.raises(ClientError) as caught:
            client.predict(**options)
        assert type(caught.value) is kind
        assert caught.value.code == code
        assert caught.value.hint
        assert caught.value.hint in str(caught.value)
    with pytest.raises(InvalidRequestError, match=r"missing\.jpg cannot be read: No such file"):
        client.predict(tmp_path / "missing.jpg")


def test_overload_and_deadline(url: str) -> None:
    """The tiny model never ends on a green image."""

    def outcome(client: GatewayClient) -> ClientError:
        with pytest.raises(ClientError) as caught:
            client.predict(STUCK)
        return caught.value

    with GatewayClient(url) as client, ThreadPoolExecutor(5) as pool:
        errors = list(pool.map(outcome, [client] * 5))
        assert sorted(type(error).__name__ for error in errors) == [
            *["DeadlineError"] * 2,
            *["OverloadedError"] * 3,
        ]
        for error in errors:
            if isinstance(error, OverloadedError):
                assert error.retry_after == 1
        assert client.predict(GOOD)
    with GatewayClient(url, deadline_s=0.2) as hasty, pytest.raises(DeadlineError, match="in time"):
        hasty.predict(STUCK)


def test_nobody_there() -> None:
    with GatewayClient("http://127.0.0.1:1") as client, pytest.raises(UnavailableError, match="be reached"):
        client.models()

    async def models() -> None:
        async with AsyncGatewayClient("http://127.0.0.1:1") as client:
            await client.models()

    with pytest.raises(UnavailableError):
        asyncio.run(models())


def test_a_response_that_a_proxy_has_damaged() -> None:
    """It says that it is compressed, and is not."""

    def damage(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))

    with GatewayClient() as client:
        client._client._transport = httpx.MockTransport(damage)
        for call in (client.models, lambda: client.predict(GOOD)):
            with pytest.raises(ServerError, match="cannot be read"):
                call()

    async def models() -> None:
        async with AsyncGatewayClient() as client:
            client._client._transport = httpx.MockTransport(damage)
            await client.models()

    with pytest.raises(ServerError, match="cannot be read"):
        asyncio.run(models())


@pytest.mark.parametrize(
    ("sent", "kind", "message"),
    [
        (b"", UnavailableError, "cannot be reached: "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nPK",
            ServerError,
            "broke off its response: .*2 by",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nPK",
            ServerError,
            "broke off its response: ",
        ),
    ],
    ids=["before", "length", "chunked"],
)
def test_a_response_that_breaks_off(sent: bytes, kind: type[ClientError], message: str) -> None:
    """Nobody there is another matter than a server that failed half-way."""

    async def ask(url: str) -> None:
        async with AsyncGatewayClient(url) as client:
            await client.download(GOOD, "zip")

    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as request:
                length = 0
                while (line := request.readline().strip().lower()) != b"":
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                request.read(length)
                connection.sendall(sent)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with GatewayClient(url) as client:
            for call in (lambda: client.download(GOOD, "zip"), lambda: asyncio.run(ask(url))):
                with pytest.raises(ClientError, match=message) as caught:
                    call()
                assert type(caught.value) is kind
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, ServerError), (404, NotFoundError), (403, InvalidRequestError), (502, ServerError)],
)
@pytest.mark.parametrize(
    ("media", "content"),
    [
        ("text/html", b"<html>hello</html>"),
        ("application/octet-stream", b""),
        (
            "application/octet-stream",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': ()}",
        ),
        ("application/json", b"[]"),
        ("application/json", b'{"maps": []}'),
        ("application/json", b'{"maps": {"depth": {"png": 1}}}'),
    ],
)
def test_another_server_is_not_taken_for_a_gateway(
    status: int, kind: type[ClientError], media: str, content: bytes
) -> None:
    class Another(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Another) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with GatewayClient(f"http://127.0.0.1:{server.server_port}") as client:
            for call in (client.models, lambda: client.predict(GOOD)):
                with pytest.raises(ClientError) as caught:
                    call()
                assert type(caught.value) is kind
        server.shutdown()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(200, html="<html>log in</html>"), "answered text/html, not in the gateway's words"),
        (httpx.Response(200, stream=httpx.ByteStream(b"maps")), "answered 200 without a Content-Type"),
        (httpx.Response(204, headers={"Content-Type": "image/png"}), "not in the gateway's words"),
        (
            httpx.Response(302, headers={"Location": "https://sso.example/login"}),
            r"answered 302 and not in the gateway's words, it redirects to https://sso\.example/login",
        ),
    ],
    ids=["page", "no type", "no content", "redirect"],
)
def test_a_page_of_a_proxy_is_no_file_and_no_maps(response: httpx.Response, message: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            response.status_code, headers=response.headers, stream=httpx.ByteStream(response.read())
        )

    async def ask(what: str) -> None:
        async with AsyncGatewayClient() as client:
            client._client._transport = httpx.MockTransport(answer)
            await (client.predict(GOOD) if what == "predict" else client.download(GOOD, "zip"))

    with GatewayClient() as client:
        client._client._transport = httpx.MockTransport(answer)
        for call in (
            client.models,
            lambda: client.predict(GOOD),
            lambda: client.download(GOOD, "zip"),
            lambda: asyncio.run(ask("predict")),
            lambda: asyncio.run(ask("download")),
        ):
            with pytest.raises(ServerError, match=message):
                call()


def test_text_is_not_read_as_maps() -> None:
    """NumPy would advise to load it unsafely."""
    with GatewayClient() as client:
        client._client._transport = httpx.MockTransport(lambda _: httpx.Response(200, text="queue full"))
        with pytest.raises(ServerError, match="answered text/plain, not in the gateway's words"):
            client.predict(GOOD)


def test_the_python_example(url: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(GOOD)
    result = CliRunner().invoke(http_app(), [str(photo), "--url", url])
    assert result.exit_code == 0, result.output
    assert "semseg: uint8 24x32: dark, medium, bright" in result.stdout
    assert f"depth: float32 24x32: {MEAN.min() / 25.5:.2f} to {MEAN.max() / 25.5:.2f} m" in result.stdout
    photo.write_bytes(b"no image")
    result = CliRunner().invoke(http_app(), [str(photo), "--url", url])
    assert result.exit_code == 1
    assert "send a complete JPEG" in result.stderr


def http_app() -> typer.Typer:
    app = typer.Typer()
    app.command()(http_predict.main)
    return app


def test_the_curl_example(url: str, tmp_path: Path) -> None:
    photo = "an image; sunset, late.png"  # curl takes ; and , for its own
    (tmp_path / photo).write_bytes(GOOD)
    subprocess.run([str(EXAMPLES / "predict.sh"), photo, url], cwd=tmp_path, check=True)
    maps = json.loads((tmp_path / "maps.json").read_text())["maps"]
    assert base64.b64decode(maps["parsing"]["png"]).startswith(b"\x89PNG")
    with np.load(tmp_path / "maps.npz") as archive:
        np.testing.assert_allclose(archive["depth"], MEAN / 25.5, rtol=1e-5)


@needs_command("node", "apt install nodejs")
def test_the_browsers_script(url: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(GOOD)
    script = (
        (EXAMPLES / "predict.js").read_text()
        + """
const image = new Blob([require("fs").readFileSync("photo.png")]);
const url = process.argv[2];
predict(url, image, ["depth", "semseg"])
  .then((answer) => console.log(Object.keys(answer.maps).join()))
  .then(() => predict(url, new Blob(["no image"])))
  .catch((error) => console.log(error.message));
"""
    )
    (tmp_path / "script.js").write_text(script)
    done = subprocess.run(
        ["node", "script.js", url], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == "depth,semseg"
    assert "send a complete JPEG" in second
    assert 'src="predict.js"' in (EXAMPLES / "predict.html").read_text()
