"""WebSockets as uvicorn speaks them; a client that takes nothing does not hold a stream for ever.

uvicorn sends pings, but ends a connection without a pong only when everything written before has been taken.
"""

import asyncio
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from mtcp_serve.server.middleware import ABNORMAL


class BoundedStream(WSProtocol):
    """uvicorn's protocol; a client that takes no byte of its responses for ``send_s`` seconds is cut off.

    Where uvicorn closes by itself (a message is too long, a pong did not come), what the application sends
    after that meets a client that left, not an error of its own.
    """

    _stalled: asyncio.TimerHandle | None = None
    _left = 0

    def __init__(self, *arguments: Any, send_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._send_s = send_s

    async def send(self, message: Any) -> None:
        """Send what the application says.

        Raises:
            ClientDisconnected: nobody is there any more.
        """
        await self.writable.wait()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on."""
        self._unwatch()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection: uvicorn says 1005 of it, as of one that was closed without a code."""
        self._unwatch()
        if self.handshake_complete:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": ABNORMAL})
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(self._send_s, self._look)

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._left:
            self._watch()
        else:
            self.transport.abort()

    def _unwatch(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
