"""A client of ``WS /stream`` that takes nothing holds its place for ``send_s`` and no longer."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import wsproto
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.events import AcceptConnection, BytesMessage, Request

from mtcp_serve.server.websocket_protocol import BoundedStream
from tests.mtcp_serve.process import CLEAN, Server, until
from tests.mtcp_serve.support import GOOD, encode, noise


class Deaf:
    """A client that sends frames and reads nothing but the handshake."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((parts.hostname, parts.port))
        self._talk = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._socket.sendall(self._talk.send(Request(host=parts.netloc, target=path)))
        self._talk.receive_data(self._socket.recv(4096))
        assert isinstance(next(self._talk.events()), AcceptConnection)

    def send(self, frame: bytes) -> None:
        self._socket.sendall(self._talk.send(BytesMessage(frame)))

    def close(self) -> None:
        self._socket.close()


def test_it_is_cut_off_and_its_place_is_free(bundle: Path) -> None:
    server = Server(bundle, max_concurrent_uploads=1, send_s=1)
    try:
        deaf = Deaf(server.url, "/stream?tasks=normals")
        deaf.send(encode(noise(1000, 1000), "JPEG"))  # whose 12 MB no socket holds

        def answered() -> bool:
            with connect(f"{server.url.replace('http', 'ws')}/stream?tasks=depth") as stream:
                try:
                    stream.send(GOOD)
                    return isinstance(stream.recv(), bytes)
                except ConnectionClosed:  # 1013: there is place for one
                    return False

        until(answered)
        deaf.close()
    finally:
        assert server.stop() in CLEAN
    assert "Traceback" not in "".join(server.log)


class Pipe:
    """A transport with so many bytes left, and a loop whose time is told."""

    def __init__(self) -> None:
        self.left = 100
        self.aborted = False
        self.later: list[Callable[[], object]] = []

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True

    def call_later(self, delay: float, what: Callable[[], object]) -> Any:
        assert delay == 5
        self.later.append(what)
        return None


@pytest.mark.parametrize(("taken", "aborted"), [([0], True), ([1, 40], False), ([30, 30, 0], True)])
def test_only_who_takes_nothing_is_cut_off(taken: list[int], aborted: bool) -> None:
    pipe = Pipe()
    config = Config(lambda: None, log_config=None)
    loop: Any = pipe
    protocol = BoundedStream(config=config, server_state=ServerState(), app_state={}, _loop=loop, send_s=5)
    protocol.transport = loop
    protocol.pause_writing()
    for count in taken:
        pipe.left -= count
        pipe.later.pop()()
    assert pipe.aborted is aborted
    assert not protocol.writable.is_set()


def test_what_is_sent_after_the_server_closed_meets_nobody() -> None:
    """A message beyond the limit has uvicorn close by itself, perhaps just before an answer is done."""

    async def scenario() -> None:
        config = Config(lambda: None, log_config=None)
        protocol = BoundedStream(config=config, server_state=ServerState(), app_state={}, send_s=5)
        protocol.handshake_complete = protocol.close_sent = True
        for message in ({"type": "websocket.send", "bytes": b"maps"}, {"type": "websocket.close"}):
            with pytest.raises(ClientDisconnected):
                await protocol.send(message)

    asyncio.run(scenario())
