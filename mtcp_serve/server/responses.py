"""Responses that may be large, sent no faster than the client takes them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PIECE = 256 * 1024
"""Bytes handed over at a time."""


class PacedResponse(Response):
    """``content`` in pieces, each when the one before is on its way; ``sending`` is held until the last is.

    A `Response` is handed over in one piece, and waits outside of every bound for a slow client.
    `mtcp_serve.server.http_protocol` cuts a client off that takes too long for a piece.
    """

    def __init__(
        self, content: bytes, headers: Mapping[str, str], sending: AbstractContextManager[None]
    ) -> None:
        super().__init__(content, headers=headers)
        self._sending = sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)  # a piece is no copy
        with self._sending:
            for start in range(0, max(len(body), 1), PIECE):
                end = start + PIECE
                await send(
                    {"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)}
                )
