"""What clients can make grow, and what goes on after their request has ended: both have bounds."""

import asyncio
import tracemalloc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.images import reader
from mtcp_serve.inference.timings import Timings
from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS
from mtcp_serve.server import http_protocol as protocol
from mtcp_serve.server.app import create_app
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.request_body import read_image
from mtcp_serve.server.responses import PacedResponse
from mtcp_serve.server.routes import v2
from mtcp_serve.server.service import Service
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.concurrency import together
from tests.mtcp_serve.clock import pass_over, run
from tests.mtcp_serve.inference.test_batcher import GatedEngine, image
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, SLOW, TASKS, WIDTH, encode, noise

RAW = {"Content-Type": "application/octet-stream"}


def test_many_small_chunks_take_no_more_memory_than_one() -> None:
    chunks = iter([b"ab"] * 20_000)

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        body = b"" if chunk is None else bytes(bytearray(chunk))  # an object of its own, as from a socket
        return {"type": "http.request", "body": body, "more_body": chunk is not None}

    request = Request({"type": "http", "headers": [(b"content-type", b"image/png")]}, receive)
    tracemalloc.start()
    try:
        data = asyncio.run(read_image(request, 10**6, 64)).image
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert data == b"ab" * 20_000
    assert peak < 300_000


def test_a_form_of_countless_fields_is_refused(client: TestClient) -> None:
    body = b"--a\r\n\r\n\r\n" * 100_000 + b"--a--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=a"}
    for path in ("/predict", "/predict/batch"):
        error = check_error(client.post(path, content=body, headers=headers), 400, "invalid_body")
        assert "fields" in error["message"]
        assert len(error["message"]) < 100
    few = b"--a\r\n\r\n\r\n" * 50 + b'--a\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    response = client.post("/predict", content=few + GOOD + b"\r\n--a--\r\n", headers=headers)
    assert "name is empty" in check_error(response, 400, "invalid_body")["message"]


def test_invented_methods_add_nothing_to_the_figures(client: TestClient) -> None:
    for number in range(20):
        assert client.request(f"INVENTED{number}", "/predict").status_code == 405
    assert "INVENTED" not in client.get("/metrics").text


def test_the_first_failure_ends_the_others_before_it_is_raised() -> None:
    ended: list[str] = []

    async def fails() -> int:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError from ValueError("why")

    async def goes_on() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("goes on")
        return 1

    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError) as error:
            await together([goes_on(), fails()])
        assert isinstance(error.value.__cause__, ValueError)
        assert ended == ["goes on"]
        assert await together(asyncio.sleep(0.01 * (3 - value), value) for value in range(3)) == [0, 1, 2]

    asyncio.run(scenario())


def test_a_batch_that_fails_leaves_no_inference_behind(bundle: Path) -> None:
    """One image of the batch fails for a reason nobody foresaw: the slow one beside it is stopped."""
    app = create_app(Settings(bundle=(bundle,), intra_op_threads=1))
    with TestClient(app, raise_server_exceptions=False) as client:
        batcher = app.state.service.models["tiny"]
        infer = batcher.infer

        async def fragile(pixels: Any, *rest: Any) -> Any:
            if tuple(pixels[0, 0]) == (255, 0, 255):
                return await infer(pixels, *rest)
            await asyncio.sleep(0.2)
            raise ZeroDivisionError

        batcher.infer = fragile
        files = [("image", ("slow.png", SLOW)), ("image", ("good.png", GOOD))]
        check_error(client.post("/predict/batch", files=files), 500, "internal_error")
        assert not batcher._running


@pytest.mark.parametrize("step", ["parse", "images_of"])
def test_a_body_of_json_is_parsed_in_a_slot(bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """As Python's numbers it is many times as large as its text, and reading them takes time."""
    app = create_app(Settings(bundle=(bundle,), intra_op_threads=1))
    work = getattr(v2, step)
    running: list[tuple[int, int]] = []

    def seen(*arguments: Any) -> Any:
        service = app.state.service
        running.append((service.admission.running, service.uploads.running))
        return work(*arguments)

    monkeypatch.setattr(v2, step, seen)
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, HEIGHT, WIDTH, 3]}
    with TestClient(app) as client:
        body = {"inputs": [{**tensor, "data": [0] * (HEIGHT * WIDTH * 3)}]}
        assert client.post("/v2/models/tiny/infer", json=body).status_code == 200
        assert running == [(1, 0)]
        assert "mtcp_uploads 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("format", [form.name for form in FORMATS.values() if form.needs_image])
def test_an_image_is_decoded_again_in_the_slot_of_its_request(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Of a large JPEG the network needs few pixels, and what shows the image all of them: no more than
    ``concurrency`` images are decoded at a time, the first time and the second."""
    app = create_app(Settings(bundle=(bundle,), intra_op_threads=1))
    load, running = reader._load, []

    def seen(*arguments: Any) -> Any:
        decoded = load(*arguments)
        running.append((decoded.image.width, app.state.service.admission.running))
        return decoded

    monkeypatch.setattr(reader, "_load", seen)
    data = encode(noise(400, 600), "JPEG")
    with TestClient(app) as client:
        assert client.post(f"/predict?format={format}", content=data, headers=RAW).status_code == 200
    assert running == [(150, 1), (600, 1)]


def test_a_batch_never_needs_an_image_again() -> None:
    """Its images are decoded one at a time, which holds for the first time alone."""
    assert not any(form.needs_image for form in BATCH_FORMATS.values())


@pytest.mark.parametrize("broken", ["too few maps", "too few images"])
def test_an_engine_that_breaks_its_contract_is_an_error_at_once(broken: str) -> None:
    class Broken(GatedEngine):
        async def infer(self, images: Any, tasks: Sequence[Any]) -> list[Any]:
            return [] if broken == "too few maps" else [np.zeros((0, 2, 3))]

    async def scenario() -> None:
        batcher = Batcher(Broken())
        with pytest.raises((ValueError, IndexError)):
            async with asyncio.timeout(60):
                await batcher.infer(image(1), TASKS[:1], Timings())
        await batcher.close()

    asyncio.run(scenario())


def test_a_model_that_cannot_be_warmed_up_is_closed_and_the_old_one_stays(bundle: Path) -> None:
    from mtcp_serve.engines.base import EngineOptions
    from mtcp_serve.engines.onnxruntime import OnnxEngine

    class Cold(GatedEngine):
        closed = False

        async def close(self) -> None:
            self.closed = True

    async def scenario() -> None:
        good = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
        async with Service(Settings(bundle=(bundle,)), [good], Metrics()) as service:
            cold, before = Cold(), service.models
            cold.manifest = good.manifest
            cold.error = ZeroDivisionError()
            cold.go.set()
            with pytest.raises(ZeroDivisionError):
                await service.reload(lambda: [cold])
            assert cold.closed
            assert service.models is before

    asyncio.run(scenario())


def test_a_reload_infers_nothing_beside_as_many_requests_as_may_run(bundle: Path) -> None:
    from mtcp_serve.engines.onnxruntime import OnnxEngine

    async def scenario() -> None:
        good = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
        async with Service(Settings(bundle=(bundle,), concurrency=1), [good], Metrics()) as service:
            go, following = asyncio.Event(), GatedEngine()
            following.manifest = good.manifest
            following.go.set()
            request = asyncio.create_task(service.admission.run(go.wait))
            reload = asyncio.create_task(service.reload(lambda: [following]))
            while not service.admission._slots._waiters:
                await asyncio.sleep(0.001)
            assert following.batches == []
            go.set()
            await asyncio.gather(request, reload)
            assert following.batches == [[0]]
            assert next(iter(service.models)).engine is following

    asyncio.run(scenario())


def test_a_reload_frees_the_model_before_even_if_its_engine_is_kept(bundle: Path) -> None:
    """The command that starts a server keeps the engines that it began with."""
    from mtcp_serve.engines.onnxruntime import OnnxEngine

    async def scenario() -> None:
        first = OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))
        assert first.sessions.alone is not None
        session = weakref.ref(first.sessions.alone)
        async with Service(Settings(bundle=(bundle,)), [first], Metrics()) as service:
            await service.reload(lambda: [OnnxEngine.load(Bundle.open(bundle), EngineOptions(threads=1))])
            assert session() is None
            with pytest.raises(RuntimeError, match="the model is closed"):
                await first.infer(np.zeros((1, 1, 1, 3), np.uint8), first.manifest.tasks)

    asyncio.run(scenario())


@pytest.mark.parametrize("reads", [False, True])
def test_a_client_that_takes_nothing_is_cut_off(reads: bool) -> None:
    """One that reads slowly is not, however long it takes altogether."""
    size = 2**25
    being_sent: list[bool] = []

    @contextmanager
    def sending() -> Iterator[None]:
        being_sent.append(True)
        yield
        being_sent.append(False)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PacedResponse(bytes(size), {}, sending())(scope, receive, send)

    async def scenario() -> int:
        limits = protocol.HttpLimits.of(Settings())
        config = uvicorn.Config(app, http=protocol.BoundedHttp, log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: protocol.BoundedHttp(config, ServerState(), {}, limits=limits), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=2**16)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        read = 0
        if not reads:
            while being_sent != [True, False]:
                await pass_over(limits.send_s / 2)
        try:
            while chunk := await reader.read(2**21):
                read += len(chunk)
                if reads:
                    await pass_over(limits.send_s / 100)
        except ConnectionResetError:
            pass
        writer.close()
        server.close()
        return read

    read = run(scenario())
    assert being_sent == [True, False]
    assert (read > size) == reads
