"""The limits that no request of good manners meets: slow heads, and what gRPC would let through by itself."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException
from uvicorn.server import ServerState

from mtcp_serve.server import process
from mtcp_serve.server.http_protocol import BoundedHttp, HttpLimits
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.clock import pass_over, run
from tests.mtcp_serve.process import CLEAN, PATIENCE_S, Server, free_port, until
from tests.mtcp_serve.support import HEIGHT, WIDTH

LIMITS = HttpLimits.of(Settings())
SERVICE = "/inference.GRPCInferenceService"


@asynccontextmanager
async def connected(
    app: Any, keep_alive_s: int = int(6 * LIMITS.header_s)
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to ``app`` behind our protocol, which has noticed it."""
    config = uvicorn.Config(
        app, http=BoundedHttp, log_config=None, lifespan="off", timeout_keep_alive=keep_alive_s
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttp(config, state, {}, limits=LIMITS), "127.0.0.1", 0
    )
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not state.connections:
            await asyncio.sleep(0.001)
        yield reader, writer
        writer.close()


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("parts", "answers"),
    [
        ([], 0),
        ([b"GET / HTTP/1.1\r\nX-Slow: "], 0),
        ([b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n", b"body", b"POST / HTTP"], 1),
        ([b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" * 3, b"POST"], 3),
    ],
    ids=["silent", "half a head", "slow body", "several"],
)
def test_a_slow_head_is_not_waited_for(parts: list[bytes], answers: int) -> None:
    """A body comes later than a head may: it has that time."""
    heads = asyncio.Queue[None]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heads.put_nowait(None)
        await echo(scope, receive, send)

    async def scenario() -> None:
        async with connected(app) as (reader, writer):
            for part in parts:
                writer.write(part)
                if part.endswith(b"\r\n\r\n"):
                    await heads.get()
                    await pass_over(2 * LIMITS.header_s)
            for _ in range(answers):
                assert (await reader.readuntil(b"\r\n\r\nbody")).startswith(b"HTTP/1.1 200 OK")
            await pass_over(LIMITS.header_s / 2)
            assert not reader.at_eof()
            await pass_over(LIMITS.header_s)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""

    run(scenario())


@pytest.mark.parametrize(("app", "answer"), [(echo, b"body"), (refuse, b"no")])
def test_a_connection_may_be_idle_between_requests_for_longer_than_a_head_may_take(
    app: Any, answer: bytes
) -> None:
    """Clients and proxies that keep connections for less meet none that is being closed."""

    async def scenario() -> None:
        async with connected(app, keep_alive_s=int(6 * LIMITS.header_s)) as (reader, writer):
            for _ in range(2):
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
                await asyncio.sleep(0.05)  # an early answer comes before the rest
                writer.write(b"dy")
                await reader.readuntil(b"\r\n\r\n" + answer)
                await asyncio.sleep(0.05)
                await pass_over(5 * LIMITS.header_s)
                assert not reader.at_eof()
            await pass_over(2 * LIMITS.header_s)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""

    run(scenario())


def test_a_body_that_goes_on_after_its_answer_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with connected(refuse) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nno")
            for _ in range(5):
                await pass_over(LIMITS.header_s / 10)
                writer.write(b"x")
            assert not reader.at_eof()
            await pass_over(LIMITS.header_s)
            async with asyncio.timeout(PATIENCE_S):
                with suppress(ConnectionError):  # cut off by a reset is cut off too
                    assert await reader.read() == b""

    run(scenario())


async def part(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"2"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.mark.parametrize(
    ("app", "header"), [(part, b""), (refuse, b"Connection: close\r\n")], ids=["we close", "they close"]
)
def test_a_client_that_sends_first_and_reads_then_gets_the_answer_that_ends_its_connection(
    app: Any, header: bytes
) -> None:
    size = 30_000_000  # more than the system keeps for a connection

    async def scenario() -> None:
        async with connected(app) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (header, size))
            for _ in range(size // 1_000_000):
                writer.write(bytes(1_000_000))
                await writer.drain()
            assert (await reader.read()).endswith(b"\r\n\r\nno")
            async with asyncio.timeout(PATIENCE_S):  # the body is whole: nothing more is waited for
                while not writer.is_closing():
                    writer.write(b"x")
                    await asyncio.sleep(0.001)

    run(scenario())


def test_a_connection_that_its_answer_ends_is_not_held_by_a_body() -> None:
    async def scenario() -> None:
        async with connected(part, keep_alive_s=1) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\nno")
            for _ in range(5):
                await pass_over(LIMITS.header_s / 10)
                writer.write(b"x")
            await asyncio.sleep(0.1)
            assert not writer.is_closing()
            await pass_over(LIMITS.header_s)
            async with asyncio.timeout(PATIENCE_S):
                while not writer.is_closing():
                    writer.write(b"x")
                    await asyncio.sleep(0.001)

    run(scenario())


@pytest.fixture(scope="module")
def door(bundle: Path) -> Iterator[tuple[Server, str]]:
    """A server that reads one body at a time; and its gRPC address."""
    port = free_port()
    server = Server(
        bundle,
        grpc_port=port,
        max_concurrent_uploads=1,
        upload_s=PATIENCE_S,
        concurrency=1,
        queue_size=1,
        max_batch_bytes=50_000,
    )
    yield server, f"127.0.0.1:{port}"
    assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


def tensor(photos: int) -> Any:
    images = np.zeros((photos, HEIGHT, WIDTH, 3), np.uint8)
    found = tritonclient.grpc.InferInput("image", list(images.shape), "UINT8")
    found.set_data_from_numpy(images)
    return found


def test_a_message_over_the_limit(door: tuple[Server, str]) -> None:
    with tritonclient.grpc.InferenceServerClient(door[1]) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("tiny", [tensor(60)])
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert client.infer("tiny", [tensor(1)]).as_numpy("semseg").shape == (1, HEIGHT, WIDTH)


def test_grpc_bodies_take_the_places_of_bodies(door: tuple[Server, str]) -> None:
    server, address = door
    with tritonclient.grpc.InferenceServerClient(address) as client:
        with server.connect("Content-Length: 5000"):
            until(lambda: server.metric("mtcp_uploads") == 1)
            with pytest.raises(InferenceServerException, match="request bodies are being read") as caught:
                client.infer("tiny", [tensor(1)])
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
            assert client.is_server_live()
        until(lambda: server.metric("mtcp_uploads") == 0)
        client.infer("tiny", [tensor(1)])


def test_a_full_queue_says_over_grpc_when_to_come_again(door: tuple[Server, str]) -> None:
    server, address = door
    with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel, server.held(2):
        infer = channel.stream_unary(
            f"{SERVICE}/ModelInfer", service_pb2.ModelInferRequest.SerializeToString, None
        )
        with pytest.raises(grpc.RpcError, match="as long as Retry-After says") as caught:
            infer(iter(()), metadata=(("x-request-id", "order-69"),))
    trailing = dict(caught.value.trailing_metadata())
    assert (trailing["retry-after"], trailing["x-request-id"]) == ("1", "order-69")


def test_a_grpc_message_that_does_not_come(bundle: Path, door: tuple[Server, str]) -> None:
    """A call of one message is a stream of one to whoever writes the bytes; its sender may take its time."""
    waiting = threading.Event()

    def nothing() -> Iterator[Any]:
        waiting.wait(PATIENCE_S)
        yield from ()

    def failure(address: str, messages: Iterator[Any]) -> Any:
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(
                f"{SERVICE}/ModelInfer", service_pb2.ModelInferRequest.SerializeToString, None
            )(messages)
        return caught.value

    port = free_port()
    server = Server(bundle, grpc_port=port, upload_s=1)
    try:
        late = failure(f"127.0.0.1:{port}", nothing())
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "not complete within 1 s" in late.details()
    finally:
        waiting.set()
        assert server.stop() in CLEAN
    assert failure(door[1], iter(())).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_so_many_grpc_calls_at_a_time(door: tuple[Server, str]) -> None:
    """Streams may stay open as long as their clients like: their number is what is bounded."""
    end = threading.Event()

    def nothing() -> Iterator[Any]:
        end.wait(PATIENCE_S)
        yield from ()

    with grpc.insecure_channel(door[1]) as channel:
        stream = channel.stream_stream(f"{SERVICE}/ModelStreamInfer", lambda message: message, None)
        live = channel.unary_unary(
            f"{SERVICE}/ServerLive",
            service_pb2.ServerLiveRequest.SerializeToString,
            service_pb2.ServerLiveResponse.FromString,
        )

        def status() -> grpc.StatusCode:
            try:
                live(service_pb2.ServerLiveRequest())
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        open_streams = [stream(nothing()) for _ in range(3)]

        def full() -> bool:
            """The call that asks may have had the place of a stream, which is refused then: open it again."""
            open_streams[:] = [each if each.is_active() else stream(nothing()) for each in open_streams]
            return status() is grpc.StatusCode.RESOURCE_EXHAUSTED

        until(full)
        end.set()
        for each in open_streams:
            each.cancel()
        until(lambda: status() is grpc.StatusCode.OK)


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith(("_s", "_ms"))])
def test_no_time_is_infinite(name: str) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        Settings.model_validate({name: float("inf")})


def test_lists_of_the_environment_may_have_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTCP_TRITON", "one:8001, two:8001 ,")
    monkeypatch.setenv("MTCP_CORS_ORIGIN", "https://a.example, https://b.example")
    assert Settings().triton == ("one:8001", "two:8001")
    assert Settings().cors_origin == ("https://a.example", "https://b.example")


def test_the_server_keeps_idle_connections_as_long_as_its_setting_says() -> None:
    for settings in (Settings(port=0), Settings(port=0, keep_alive_s=620)):
        assert process.Server(FastAPI(), settings).config.timeout_keep_alive == settings.keep_alive_s
    assert Settings().keep_alive_s > 60  # which is how long common balancers keep theirs
