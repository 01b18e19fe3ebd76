"""HTTP/1.1 as uvicorn reads it, and what it leaves open: the time for a head, the answer to a bad one."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mtcp_serve.errors import InvalidRequestError
from mtcp_serve.security.headers import EVERYWHERE

HEAD_S = 10.0
"""Seconds that the head of a request may take; then the connection is closed."""
HEAD_BYTES = 32 * 1024
"""Longest head (bytes); a longer one is answered 400."""


SEND_S = 30.0
"""Seconds in which a client must take what is ready to be sent; then the connection is cut."""


class BoundedHttp(H11Protocol):
    """uvicorn's protocol; a client that sends a head slowly, or none, does not hold a connection for ever.

    Nor does one that goes on with a body after its answer: what nobody reads has the time of a head.
    """

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read; after a head or its first part the time starts or ends."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next head, or for the rest of a body that was answered early."""
        super().on_response_complete()
        if self._unread:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwatch()
        super().connection_lost(exc)
        self._unstall()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._stalled = self.loop.call_later(SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        self._unstall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer a head that is no HTTP in the shape of every error."""
        error = InvalidRequestError(f"{msg.rstrip('.')}, or its head is longer than {HEAD_BYTES} bytes")
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

    @property
    def _unread(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        waiting = self.conn.their_state is h11.IDLE or self._unread
        if not waiting or self.transport.is_closing():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _unstall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
