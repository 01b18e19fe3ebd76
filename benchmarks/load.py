"""A server under a closed loop of clients: ``python -m benchmarks.load --clients 64 --seconds 60``.

Each client sends a photo, waits for the answer, and sends the next; after a 429 or 503 it waits as long as
``Retry-After`` says. Prints JSON: answers by status, transport errors, throughput, seconds of the answered
requests (median, 90th and 99th percentile, largest), the longest queue, and resident memory over time.
"""

import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer

from benchmarks.serving import resident_megabytes, server
from mtcp_serve.settings import DEFAULT_BUNDLE

PHOTO = Path(__file__).parent.parent / "docs" / "astronaut.jpg"
_SAMPLE_S = 1.0


class Load:
    """What the clients met."""

    def __init__(self, url: str, query: str, photo: bytes) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.queue = 0.0
        self.memory: list[float | None] = []
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=120,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._query = query
        self._photo = photo

    async def client(self, end: float) -> None:
        """One client of the closed loop, until the clock says ``end``."""
        headers = {"Content-Type": "image/jpeg"}
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                response = await self._http.post(
                    f"/predict?{self._query}", content=self._photo, headers=headers
                )
            except httpx.TransportError as error:
                self.errors[type(error).__name__] += 1
                continue
            self.statuses[response.status_code] += 1
            if response.status_code == httpx.codes.OK:
                self.seconds.append(time.perf_counter() - start)
            await asyncio.sleep(float(response.headers.get("Retry-After", 0)))

    async def watch(self, pid: int) -> None:
        """Sample memory and queue once a second."""
        while True:
            self.memory.append(resident_megabytes(pid))
            metrics = (await self._http.get("/metrics")).text
            found = re.search(r"^mtcp_queue_requests (\S+)$", metrics, re.MULTILINE)
            self.queue = max(self.queue, float(found[1]) if found else 0.0)
            await asyncio.sleep(_SAMPLE_S)

    async def run(self, pid: int, clients: int, seconds: float) -> None:
        """All clients at once."""
        watching = asyncio.create_task(self.watch(pid))
        end = time.perf_counter() + seconds
        async with self._http:
            await asyncio.gather(*(self.client(end) for _ in range(clients)))
            watching.cancel()


def main(
    clients: Annotated[int, typer.Option(help="Clients of the closed loop.")] = 64,
    seconds: Annotated[float, typer.Option(help="How long they send.")] = 60.0,
    photo: Annotated[Path, typer.Option(help="The photo to send.", exists=True)] = PHOTO,
    query: Annotated[str, typer.Option(help="Query of POST /predict.")] = "format=npz&size=model",
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads an inference.")] = 2,
) -> None:
    """Start a server, load it, and print what happened."""
    with server(bundle, threads) as (http, process, _):
        load = Load(str(http.base_url), query, photo.read_bytes())
        asyncio.run(load.run(process.pid, clients, seconds))
    answered = np.array(load.seconds or [np.nan])
    report = {
        "clients": clients,
        "seconds": seconds,
        "query": query,
        "statuses": dict(sorted(load.statuses.items())),
        "transport_errors": dict(load.errors),
        "answered_per_s": round(len(load.seconds) / seconds, 2),
        "answered_s": {
            name: round(float(np.percentile(answered, share)), 3)
            for name, share in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100))
        },
        "longest_queue": int(load.queue),
        "resident_mb": load.memory,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    typer.run(main)
