"""A small web server on loopback: pages by path, through TLS where it is requested."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Pages(BaseHTTPRequestHandler):
    """Answers with what the server has at the path: a status, headers and a body."""

    def do_GET(self) -> None:
        status, headers, body = self.server.pages[self.path.partition("?")[0]]  # type: ignore[attr-defined]
        self.server.asked.append(dict(self.headers) | {"path": self.path})  # type: ignore[attr-defined]
        with suppress(OSError):  # the client has had enough
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class WebServer:
    """``pages`` by path on loopback, through TLS with ``context``."""

    def __init__(self, pages: dict[str, tuple[int, dict[str, str], bytes]], context: Any = None) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.pages = pages  # type: ignore[attr-defined]
        self.asked: list[dict[str, str]] = []
        self._server.asked = self.asked  # type: ignore[attr-defined]
        self.port = self._server.server_address[1]
        self.url = f"http{'' if context is None else 's'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def sized(body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Length": str(len(body)), **headers}, body
