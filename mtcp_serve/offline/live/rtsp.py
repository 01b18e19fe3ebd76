"""RTSP for FFmpeg through a relay of our own, which is the only thing that FFmpeg connects to.

FFmpeg's RTSP follows redirects on its own, to any address. Here it talks to a port of this machine, from
which the relay passes everything on to a connection that was allowed (`mtcp_serve.offline.live.connect`),
through TLS for ``rtsps``; an answer that redirects ends it. The pictures come on the same connection
("interleaved", RFC 2326, section 10.12), so nothing else has to be reached.
"""

import re
import select
import socket
from contextlib import suppress
from ssl import SSLSocket, SSLWantReadError, SSLWantWriteError
from threading import Lock, Thread
from typing import Final
from urllib.parse import quote

from mtcp_serve.offline.live import SILENCE_S, LiveError
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.live.connect import connect
from mtcp_serve.utils.closing import Closing

OPTIONS: Final = {
    "rtsp_transport": "tcp",
    "allowed_media_types": "video",
    "protocol_whitelist": "rtsp,rtp,tcp",
    "format_whitelist": "rtsp,mpegts",
}
"""What FFmpeg is told, so that it connects to nothing but the relay."""
_FRAME: Final = ord("$")
_MOST_HEADER: Final = 64 * 1024
_MOST: Final = 2**20
_BLOCK: Final = 64 * 1024
_JOIN_S: Final = 2.0
_STATUS: Final = re.compile(rb"RTSP/\d\.\d +(\d{3})([^\r\n]*)")
_LENGTH: Final = re.compile(rb"^content-length *: *(\d+)", re.IGNORECASE | re.MULTILINE)


class RtspRelay(Closing):
    """Passes one RTSP conversation on to ``address``.

    Raises:
        LiveError: the address cannot be reached, or may not be.
    """

    def __init__(self, address: Address, allow_private: bool) -> None:
        self._address = address
        self._server = connect(address, allow_private)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(SILENCE_S)
        self._port = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._lock = Lock()
        self._closed = False
        self.refusal: str | None = None
        """What the server answered that was not passed on."""
        self._thread = Thread(target=self._run, name="rtsp-relay", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What FFmpeg is given."""
        login = self._address.login
        who = "" if login is None else ":".join(quote(part, safe="") for part in login) + "@"
        return f"rtsp://{who}127.0.0.1:{self._port}{self._address.path}"

    def close(self) -> None:
        """End both connections; the thread closes them, since it may be waiting for one."""
        with self._lock:
            self._closed = True
            for each in (self._server, self._client, self._listener):
                if each is not None:
                    with suppress(OSError):  # closed already
                        socket.socket.shutdown(each, socket.SHUT_RDWR)  # below TLS, which is not at rest
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        """Pass on, in one thread: a TLS connection is not for two."""
        with self._listener, self._server, suppress(OSError):  # FFmpeg says that its connection ended
            client, _ = self._listener.accept()
            self._listener.close()  # one conversation, and nobody else's
            with client:
                with self._lock:
                    self._client = client
                    if self._closed:
                        return
                try:
                    self._pass_on(client)
                except LiveError as error:
                    self.refusal = str(error)

    def _pass_on(self, client: socket.socket) -> None:
        """What FFmpeg sends as it comes; what the server sends message by message, until one redirects."""
        server, waiting = self._server, bytearray()
        while True:
            held = server.pending() if isinstance(server, SSLSocket) else 0
            ready = [server] if held else select.select([client, server], [], [], SILENCE_S)[0]
            if not ready:
                return
            if client in ready:
                if not (asked := client.recv(_BLOCK)):
                    return
                server.sendall(asked)
            if server in ready:
                if (answered := _received(server)) is None:
                    continue
                if not answered:
                    return
                waiting += answered
                whole = self._whole(waiting)
                client.sendall(waiting[:whole])
                del waiting[:whole]

    def _whole(self, waiting: bytearray) -> int:
        """Bytes of the messages in ``waiting`` that are there as a whole.

        Raises:
            LiveError: one redirects, or is no RTSP.
        """
        whole = 0
        while (size := message_size(waiting, whole)) is not None:
            status = _STATUS.match(waiting, whole)
            if status is not None and status[1].startswith(b"3"):
                said = (status[1] + status[2]).decode("latin-1")
                raise LiveError(f"it redirects ({said}); name the address that it redirects to")
            whole += size
        if len(waiting) - whole > _MOST:
            raise LiveError(f"the server sends a message of more than {_MOST} bytes")
        return whole


def _received(server: socket.socket) -> bytes | None:
    """What has come; ``None`` where that was of TLS alone, such as the tickets of a session."""
    patience = server.gettimeout()
    server.setblocking(False)
    try:
        return server.recv(_BLOCK)
    except (SSLWantReadError, SSLWantWriteError):
        return None
    finally:
        server.settimeout(patience)


def message_size(data: bytearray, start: int) -> int | None:
    """Bytes of the message at ``start``: of an interleaved frame, or an answer with its body.

    ``None`` where not all of them are there.

    Raises:
        LiveError: it is none.
    """
    if start >= len(data):
        return None
    if data[start] == _FRAME:
        size = 4 + int.from_bytes(data[start + 2 : start + 4], "big")
        return size if len(data) - start >= max(size, 4) else None
    end = data.find(b"\r\n\r\n", start)
    if end < 0:
        if len(data) - start > _MOST_HEADER:
            raise LiveError("what the server sends is no RTSP")
        return None
    length = _LENGTH.search(data, start, end)
    size = end + 4 - start + (0 if length is None else int(length[1]))
    return size if len(data) - start >= size else None
