"""Starting the gateway and its peers, each a process on a loopback port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import descendants
from benchmarks.peers.work import BUNDLE, ENGINE, THREADS, Format
from benchmarks.serving.gateway import gateway
from benchmarks.serving.loops import Call

START_S = 120.0
OURS = "mtcp-serve"


@dataclass(frozen=True)
class Server:
    """A running server: how to send it an image, and its processes."""

    url: str
    pid: int
    form: bool
    """Whether it takes a form, else the raw body."""

    def call(self, http: httpx.AsyncClient, image: bytes, form: Format) -> Call:
        """Sends ``image``, for an answer in ``form``."""
        url = f"{self.url}/predict"
        if self.form:
            sent: dict[str, Any] = {"files": {"image": ("image", image)}, "data": {"format": form}}
        else:
            size = {"npz": "model", "json": "input"}[form]
            headers = {"Content-Type": "application/octet-stream"}
            sent = {"content": image, "params": {"format": form, "size": size}, "headers": headers}

        async def call() -> tuple[int, int]:
            response = await http.post(url, **sent)
            return response.status_code, len(response.content)

        return call

    @property
    def pids(self) -> list[int]:
        """Its process and those it has started."""
        return [self.pid, *descendants(self.pid)]


@dataclass(frozen=True)
class Peer:
    """How a peer is started, and asked whether it is ready."""

    command: Callable[[int], list[str]]
    """What to give to Python, for a port."""
    ready: str
    form: bool
    needs: str
    """The package that it is."""
    takes_socket: bool = False
    """Whether it is given a listening socket, so that nobody else can take its port; else a port."""

    def problem(self) -> str | None:
        """Why it cannot be started here; None if it can."""
        if find_spec(self.needs) is None:
            return f"{self.needs} is not installed; pip install '.[bench]' in an environment of its own"
        return None

    @contextmanager
    def start(self, bundle: Path, engine: str, threads: int) -> Iterator[Server]:
        """Serve ``bundle`` while the block lasts.

        Raises:
            RuntimeError: it ended, or was not ready in time.
        """
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port: int = listening.getsockname()[1]
            given = {
                BUNDLE: str(bundle.resolve()),
                ENGINE: engine,
                THREADS: str(threads),
                "PEER_PORT": str(port),
                "PEER_SOCKET": str(listening.fileno()),
                "BENTOML_DO_NOT_TRACK": "True",
            }
            process = subprocess.Popen(
                [sys.executable, *self.command(port)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | given,
                pass_fds=[listening.fileno()] if self.takes_socket else [],
            )
        with process:
            url = f"http://127.0.0.1:{port}"
            server = Server(url, process.pid, self.form)
            try:
                _wait(url + self.ready, process)
                yield server
            finally:
                workers = descendants(process.pid)
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                _end(workers)


def _module(name: str) -> Callable[[int], list[str]]:
    return lambda port: ["-m", f"benchmarks.peers.{name}"]


def _bento(port: int) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return ["-m", "bentoml", "serve", "benchmarks.peers.bento:Maps", *where]


PEERS = {
    "plain FastAPI": Peer(_module("plain"), "/ready", False, "fastapi", takes_socket=True),
    "LitServe": Peer(_module("lit"), "/health", True, "litserve"),
    "BentoML": Peer(_bento, "/readyz", True, "bentoml"),
}
"""By name."""


@contextmanager
def ours(
    bundle: Path, engine: str, threads: int, *options: str, checkout: Path | None = None
) -> Iterator[Server]:
    """The gateway, of ``checkout`` if given, as `Peer.start` starts the others."""
    with gateway(bundle, threads, "--engine", engine, *options, checkout=checkout) as server:
        yield Server(server.url, server.pid, False)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"no answer at {url}: the server ended, or took more than {START_S:g} s to start")


def _end(pids: list[int]) -> None:
    """End the workers that a server left behind."""
    for pid in pids:
        try:
            os.kill(pid, 15)
        except ProcessLookupError:
            continue
