"""A server process on a loopback port."""

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.mtcp_serve.support import GOOD
from tests.mtcp_serve.test_bad_input import PNG

CLEAN = (0, -signal.SIGTERM)
"""Exit codes of a server that ended in order; uvicorn passes the signal on when it has cleaned up."""


class Server:
    """A ``mtcp-serve serve`` process and a client for it; ``options`` are of its command line."""

    def __init__(self, *bundles: Path, **options: object) -> None:
        command = [sys.executable, "-m", "mtcp_serve", "serve", "--port", "0", "--threads", "1"]
        for bundle in bundles:
            command += ["--bundle", str(bundle)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.log: list[str] = []
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"running on (https?://127\.0\.0\.1:\d+)", line)
            if found:
                self.url = found[1]
                break
        else:
            raise AssertionError("".join(self.log))
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
        self._reader.start()
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def predict(self, photo: bytes = GOOD, query: str = "tasks=depth") -> httpx.Response:
        return self.client.post(f"/predict?{query}", content=photo, headers=PNG)

    def connect(self, headers: str, query: str = "") -> socket.socket:
        """A connection on which the head of a ``POST /predict`` has been sent, but no body."""
        connection = socket.create_connection(("127.0.0.1", self.client.base_url.port or 0), timeout=10)
        head = f"POST /predict?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{headers}\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end; the whole log is in ``log`` then."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return self.process.returncode
