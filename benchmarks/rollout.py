"""Restarts under load: ``python -m benchmarks.rollout --restarts 10``.

Two servers stand behind a balancer that learns late, as Kubernetes' endpoints do: a server that is told to
end (SIGTERM) is still sent connections for ``--lag`` seconds, a new one is sent some as soon as it is ready.
One after the other is replaced while clients send images without pause: one half on a connection for each
request, the other on one that they keep until the server ends it. Prints JSON: responses by status,
transport errors, and how long a restart took. Exit status 1 if a response was not 200 or a request got none.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import httpx
import typer

from benchmarks.machine import machine
from mtcp_serve.bundle import DEFAULT_BUNDLE

IMAGE = Path(__file__).parent.parent / "docs" / "astronaut.jpg"
_QUERY = "/predict?format=npz&size=model"


class Rollout:
    """Servers, the balancer's view of them, and what the clients met."""

    def __init__(self, command: list[str], lag_s: float, image: bytes) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self._command = command
        self._lag_s = lag_s
        self._image = image
        self._servers: dict[str, asyncio.subprocess.Process] = {}
        self._drains: list[asyncio.Task[bytes]] = []
        self._endpoints: list[str] = []
        self._done = False

    async def run(self, restarts: int, clients: int) -> list[float]:
        """Seconds that each of ``restarts`` took."""
        seconds = []
        try:
            for _ in range(2):
                await self._start()
            sending = [asyncio.create_task(self._client(number)) for number in range(clients)]
            for _ in range(restarts):
                start = time.perf_counter()
                old = self._endpoints[0]
                await self._start()
                await self._stop(old)
                seconds.append(round(time.perf_counter() - start, 1))
            self._done = True
            await asyncio.gather(*sending)
        finally:
            for server in self._servers.values():
                server.kill()
                await server.wait()
            await asyncio.gather(*self._drains)
        return seconds

    async def _start(self) -> None:
        """Start a server, and tell the balancer of it when it is ready (it says its address then)."""
        server = await asyncio.create_subprocess_exec(*self._command, stderr=subprocess.PIPE)
        assert server.stderr is not None
        while b"running on http://" not in (line := await server.stderr.readline()):
            assert line, "the server did not start"
        url = line.decode().split("running on ")[1].split(" ")[0]
        self._servers[url] = server
        self._drains.append(asyncio.create_task(server.stderr.read()))
        self._endpoints.append(url)

    async def _stop(self, url: str) -> None:
        """End a server, and tell the balancer of it when ``lag_s`` have passed."""
        self._servers[url].terminate()
        await asyncio.sleep(self._lag_s)
        self._endpoints.remove(url)
        await self._servers.pop(url).wait()

    async def _client(self, number: int) -> None:
        """Send one image after the other; each connection goes to the next of the endpoints."""
        keeps = number % 2 == 1
        while not self._done:
            url = self._endpoints[number % len(self._endpoints)]
            number += 1
            async with httpx.AsyncClient(timeout=120) as http:
                while await self._send(http, url) and keeps and not self._done:
                    pass

    async def _send(self, http: httpx.AsyncClient, url: str) -> bool:
        """Send an image; whether the connection is good for more."""
        try:
            response = await http.post(
                url + _QUERY, content=self._image, headers={"Content-Type": "image/jpeg"}
            )
        except httpx.TransportError as error:
            self.errors[type(error).__name__] += 1
            return False
        self.statuses[response.status_code] += 1
        return bool(response.headers.get("connection") != "close")


def main(
    restarts: Annotated[int, typer.Option(help="Servers that are replaced.")] = 10,
    clients: Annotated[int, typer.Option(help="Clients that send without pause.")] = 4,
    lag: Annotated[float, typer.Option(help="Seconds until the balancer knows of an end.")] = 2.0,
    delay: Annotated[float, typer.Option(help="The servers' --shutdown-delay-s.")] = 5.0,
    image: Annotated[Path, typer.Option(help="The image to send.", exists=True)] = IMAGE,
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads of an inference.")] = 1,
) -> None:
    """Replace servers under load, and print what the clients met."""
    serve = [sys.executable, "-m", "mtcp_serve", "serve", "--bundle", str(bundle), "--port", "0"]
    command = [*serve, "--intra-op-threads", str(threads), "--shutdown-delay-s", str(delay)]
    rollout = Rollout(command, lag, image.read_bytes())
    seconds = asyncio.run(rollout.run(restarts, clients))
    good = set(rollout.statuses) == {200} and not rollout.errors
    report = {
        "machine": machine(threads),
        "restarts": len(seconds),
        "clients": clients,
        "lag_s": lag,
        "shutdown_delay_s": delay,
        "statuses": dict(sorted(rollout.statuses.items())),
        "transport_errors": dict(rollout.errors),
        "restart_s": seconds,
        "verdict": {"every_response_200": good},
    }
    print(json.dumps(report))
    if not good:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
