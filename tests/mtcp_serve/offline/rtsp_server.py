"""A small RTSP server on loopback: MPEG-TS in RTP on the control connection (RFC 2326, RFC 2250)."""

import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PACKET = 7 * 188
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=clip\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"


class RtspServer:
    """Plays ``stream`` to everybody who asks, and keeps the requests in ``asked``.

    ``answers`` has, by method, a status line and headers to answer with instead. With ``endless`` the stream
    begins again and again until the server is closed.
    """

    def __init__(
        self,
        stream: bytes,
        answers: dict[str, str] | None = None,
        endless: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._stream = stream
        self._answers = answers or {}
        self._endless = endless
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = [self._listener]
        self.asked: list[str] = []
        self.url = (
            f"rtsp{'' if tls is None else 's'}://127.0.0.1:{self._listener.getsockname()[1]}/cam/clip.ts"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with suppress(OSError):  # the client has closed it
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed: that is the end
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with suppress(OSError, StopIteration):  # the client has had enough
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client:
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            while True:
                request = [next(lines).decode().strip()]
                while line := next(lines).decode().strip():
                    request.append(line)
                self._answer(client, request)

    def _answer(self, client: socket.socket, request: list[str]) -> None:
        self.asked.append(request[0])
        method = request[0].split()[0]
        number = next(line for line in request if line.lower().startswith("cseq"))
        head, body = "RTSP/1.0 200 OK", ""
        if method in self._answers:
            head = self._answers[method]
        elif method == "OPTIONS":
            head += "\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
        elif method == "DESCRIBE":
            body = _SDP
            head += f"\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}"
        elif method == "SETUP":
            head += "\r\nSession: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1"
        client.sendall(f"{head}\r\n{number}\r\n\r\n{body}".encode())
        if method == "PLAY":
            self._play(client)

    def _play(self, client: socket.socket) -> None:
        parts = [self._stream[at : at + _PACKET] for at in range(0, len(self._stream), _PACKET)]
        for index, part in enumerate(itertools.cycle(parts) if self._endless else parts):
            rtp = struct.pack(">BBHII", 0x80, 33, index & 0xFFFF, 3600 * index & 0xFFFFFFFF, 7) + part
            client.sendall(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
            time.sleep(0.002 if self._endless else 0)  # leaves the processor to who reads
        client.shutdown(socket.SHUT_RDWR)


@contextmanager
def rtsp_server(
    stream: bytes,
    answers: dict[str, str] | None = None,
    endless: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Iterator[RtspServer]:
    server = RtspServer(stream, answers, endless, tls)
    try:
        yield server
    finally:
        server.close()
