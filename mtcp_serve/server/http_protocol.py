"""HTTP/1.1 as uvicorn reads it, and what it leaves open: slow heads, bad ones, responses before the body."""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mtcp_serve.errors import InvalidRequestError
from mtcp_serve.server.security.headers import EVERYWHERE
from mtcp_serve.server.settings import Settings

_PROBE_S = 0.2


@dataclass(frozen=True)
class HttpLimits:
    """What a connection may take; see the settings of the same names."""

    max_header_bytes: int
    header_s: float
    max_discarded_bytes: int
    send_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that the settings set."""
        return cls(
            settings.max_header_bytes, settings.header_s, settings.max_discarded_bytes, settings.send_s
        )


class _Transport:
    """A connection as uvicorn sees it: its `close` is asked to ``close``, which may wait."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[asyncio.Transport], None]) -> None:
        self._transport = transport
        self._close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """See `BoundedHttp`."""
        self._close(self._transport)


class BoundedHttp(H11Protocol):
    """uvicorn's protocol; a client that sends a head slowly, or none, does not hold a connection for ever.

    Nor does one that goes on with a body after its response: what nobody reads has the time of a head, and a
    limit in bytes. A connection that the response ends is not closed before: the system would throw the
    response away with the body, and the client, or a proxy, would see nothing but a broken connection.
    """

    _deadline: asyncio.TimerHandle | None = None
    _probing: asyncio.TimerHandle | None = None
    _half_closed = False
    _stalled: asyncio.TimerHandle | None = None
    _lingers = False
    _upgraded = False
    _discarded = 0

    def __init__(self, *arguments: Any, limits: HttpLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read; after a head or its first part the time starts or ends."""
        if self._unread:
            self._discarded += len(data)
        if self._discarded > self._limits.max_discarded_bytes:
            self.transport.abort()
        elif self._lingers:
            self._discard(data)
        else:
            super().data_received(data)
        if not self._upgraded:
            self._keep_alive()
            self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over; the bounds of HTTP end here."""
        self._unwatch()
        self._upgraded = True
        self.transport = self.transport._transport  # type: ignore[attr-defined]
        super().handle_websocket_upgrade(event)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Go on with a request that is whole: its client sends no more, and may wait for the response.

        Or it has closed the connection, which looks the same until something is sent to it: a
        ``100 Continue``, which clients of HTTP/1.1 skip, and a closed socket answers with a reset.
        """
        busy = self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY)
        if not busy or self.conn.their_state is h11.SEND_BODY or not self.transport.can_write_eof():
            return False  # with TLS there is no half a connection
        self._half_closed = True
        if self.conn.our_state is h11.SEND_RESPONSE and self.conn.their_http_version == b"1.1":
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(go_on) or b"")
        self._probe()
        return True

    def close_if_idle(self) -> None:
        """Close it between two requests; where one is under way, it goes on."""
        if self._between_requests and not self._upgraded:
            self.transport.close()

    def _probe(self) -> None:
        """Look again and again whether the client has reset the connection, which nobody reads any more."""
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._probing = self.loop.call_later(_PROBE_S, self._probe)

    def on_response_complete(self) -> None:
        """Wait for the next head, or for the rest of a body that was answered early."""
        super().on_response_complete()
        if self._half_closed and self.conn.our_state is h11.IDLE:
            self.transport.close()
        self._discarded = 0
        if self._lingers:
            self._unset_keepalive_if_required()  # nothing is kept alive: the time is ours
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwatch()
        if self._probing is not None:
            self._probing.cancel()
        super().connection_lost(exc)
        self._unstall()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._limits.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        self._unstall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer a head that is not HTTP in the shape of every error."""
        limit = self._limits.max_header_bytes
        error = InvalidRequestError(f"{msg.rstrip('.')}, or its head is longer than {limit} bytes")
        body = json.dumps(error.body()).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *EVERYWHERE.items(),
        ]
        for event in (
            h11.Response(status_code=error.status, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _close(self, transport: asyncio.Transport) -> None:
        """Close; while a body is under way that nobody reads, only this side, and the other one later."""
        if self._lingers or not self._unread:
            transport.close()
            return
        self._lingers = True
        if transport.can_write_eof():  # not with TLS
            try:
                transport.write_eof()
            except OSError:  # the client is gone
                transport.close()

    def _discard(self, data: bytes) -> None:
        """Read on to the end of the body, for nothing."""
        self.conn.receive_data(data)
        try:
            while isinstance(self.conn.next_event(), h11.Data):
                pass
        except h11.RemoteProtocolError:
            self.transport.close()
        if self.conn.their_state is not h11.SEND_BODY:
            self.transport.close()

    @property
    def _unread(self) -> bool:
        answered = self.conn.our_state in (h11.DONE, h11.CLOSED)
        return answered and self.conn.their_state is h11.SEND_BODY

    @property
    def _between_requests(self) -> bool:
        """Whether nothing is under way: a response is done, and of the next request not a byte is here."""
        return self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    def _keep_alive(self) -> None:
        """Start the time that uvicorn leaves out where the body's end comes after the response."""
        if self._between_requests and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _watch(self) -> None:
        head = self.conn.their_state is h11.IDLE and not self._between_requests
        waiting = head or self._unread
        if not waiting or self.transport.is_closing():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.header_s, self.transport.close)

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
