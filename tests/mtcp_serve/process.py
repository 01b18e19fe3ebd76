"""A server process on a loopback port, and waiting for what must happen."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from export.triton.local import reserve
from tests.mtcp_serve.server.test_bad_input import PNG
from tests.mtcp_serve.support import GOOD, STUCK

CLEAN = (0, -signal.SIGTERM)
"""Exit codes of a server that ended in order; uvicorn passes the signal on when it has cleaned up."""
PATIENCE_S = 120
"""More than anything here takes on a busy machine: it only keeps a test that went wrong from hanging."""
_reserved: list[socket.socket] = []


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def free_port() -> int:
    """A loopback port to listen on, which nobody else is given as long as this process lives.

    A socket stays bound to it, and does not listen: a server that is told to take the port can.
    """
    _reserved.append(reserve())
    return int(_reserved[-1].getsockname()[1])


class Server:
    """A ``mtcp-serve serve`` process and a client for it; ``options`` are of its command line."""

    def __init__(self, *bundles: Path, **options: object) -> None:
        command = [sys.executable, "-m", "mtcp_serve", "serve", "--port", "0", "--intra-op-threads", "1"]
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
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def metric(self, name: str) -> float:
        """A metric of ``/metrics``."""
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.split()[0] == name))

    def count(self, name: str, headers: Mapping[str, str] | None = None) -> float:
        """A counter of ``/metrics``, with its labels; 0 where it has not counted yet."""
        lines = (
            line.rsplit(" ", 1) for line in self.client.get("/metrics", headers=headers).text.splitlines()
        )
        return next((float(value) for found, value in lines if found == name), 0.0)

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a log in JSON with which the request or stream of that id ended; waits for it."""

        def found() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in [*self.log] if request_id in line]
            return [line for line in lines if "status" in line]

        until(lambda: bool(found()))
        return found()[0]

    def predict(self, photo: bytes = GOOD, query: str = "tasks=depth") -> httpx.Response:
        return self.client.post(f"/predict?{query}", content=photo, headers=PNG)

    def connect(self, headers: str, query: str = "") -> socket.socket:
        """A connection on which the head of a ``POST /predict`` has been sent, but no body."""
        connection = socket.create_connection(
            ("127.0.0.1", self.client.base_url.port or 0), timeout=PATIENCE_S
        )
        head = f"POST /predict?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n{headers}\r\n\r\n"
        connection.sendall(head.encode())
        return connection

    @contextmanager
    def held(self, requests: int = 1) -> Iterator[None]:
        """While the block lasts, ``requests`` are running or waiting that never end by themselves."""

        def accepted() -> float:
            return self.metric("mtcp_running_requests") + self.metric("mtcp_queue_requests")

        with ExitStack() as connections:
            for _ in range(requests):
                connection = connections.enter_context(self.connect(f"Content-Length: {len(STUCK)}"))
                connection.sendall(STUCK)
            until(lambda: accepted() == requests)
            yield
        until(lambda: accepted() == 0)

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end; the whole log is in ``log`` then."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=PATIENCE_S)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return self.process.returncode
