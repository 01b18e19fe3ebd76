"""A long time at twice the capacity, with everything mixed in: ``python -m benchmarks.soak --seconds 3600``.

Twice as many clients as the server works on and lets wait send good images, odd ones and broken requests,
each in turn and without pause (after a 429 as long as ``Retry-After`` says). Beside them some send a body
byte by byte, some close their connection before the response, and the bundle is reloaded (SIGHUP) again and
again, 30 s after the last time. Prints JSON: responses by kind of request and status, transport errors,
tracebacks in the server's log, and resident memory (MB): its median from each reload to the next, and its
peak, when two models are open. Exit status 1 if a response was none of those documented for its kind, or if
after the warm-up (the first third, ten minutes at most) a median was not within 5 % of their mean.
"""

import asyncio
import io
import json
import os
import signal
import statistics
import struct
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer
from PIL import Image

from benchmarks.machine import machine, resident_megabytes
from benchmarks.serving.gateway import gateway
from mtcp_serve.bundle import DEFAULT_BUNDLE

IMAGE = Path(__file__).parent.parent / "docs" / "astronaut.jpg"
_RELOAD_S = 30.0
_SAMPLE_S = 1.0
_STEADY = 0.05
_WARM_UP_S = 600.0
_BUSY = frozenset({429, 503, 504})
"""What any request may be answered at twice the capacity."""


@dataclass(frozen=True)
class Kind:
    """A kind of request, and what it may be answered when the server is not too busy."""

    name: str
    body: bytes
    expected: int
    query: str = "format=npz&size=model"
    media_type: str = "image/jpeg"


def kinds(good: bytes) -> list[Kind]:
    """Requests that people send, and some that nobody should."""
    image = Image.open(io.BytesIO(good)).convert("RGB")
    small = image.resize((96, 64))
    frames = [small.rotate(angle) for angle in (0, 90, 180)]
    parts = [("size", b"model"), ("format", b"npz"), ("image", good)]
    form = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in parts
    )
    return [
        Kind("jpeg", good, 200),
        Kind("json at its size", good, 200, query="visualize=true"),
        Kind("form", form + b"--b--\r\n", 200, "", "multipart/form-data; boundary=b"),
        Kind("16-bit grey", _encode(small.convert("I;16"), "PNG"), 200),
        Kind("CMYK", _encode(image.convert("CMYK"), "JPEG"), 200),
        Kind("palette with alpha", _encode(small.convert("P"), "PNG", transparency=3), 200),
        Kind("animation", _encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), 200),
        Kind("webp", _encode(small, "WEBP"), 200),
        Kind("tiff", _encode(small, "TIFF", compression="tiff_lzw"), 200),
        Kind("avif", _encode(small, "AVIF"), 200),
        Kind("cut short", good[: len(good) // 2], 400),
        Kind("text", b"no image" * 100, 400),
        Kind("nothing", b"", 400),
        Kind("announced as huge", _huge_png(), 413),
        Kind("no such task", good, 404, query="tasks=nothing"),
        Kind("no such format", good, 422, query="format=tar"),
        Kind("no such type", good, 415, media_type="application/json"),
    ]


def _encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _huge_png() -> bytes:
    """A PNG that announces 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


class Soak:
    """What the clients met."""

    def __init__(self, requests: Sequence[Kind]) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.errors: Counter[str] = Counter()
        self.memory: list[tuple[int, float]] = []
        """How many reloads there were, and the memory (MB) after them."""
        self.curve_s: list[float] = []
        """Seconds from the start to the end of each reload."""
        self.reloading = False
        self.peak = 0.0
        self.tracebacks = 0
        self._kinds = requests
        self._start = time.perf_counter()

    async def run(self, url: str, pid: int, clients: int, seconds: float) -> None:
        """All of it at once, for ``seconds``."""
        self._address = urlsplit(url)
        self._http = httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None))
        self._start = time.perf_counter()
        end = time.perf_counter() + seconds
        async with self._http, asyncio.TaskGroup() as group:
            beside = [group.create_task(each) for each in (self._watch(pid), self._reload(pid))]
            beside += [group.create_task(self._drip()), group.create_task(self._leave())]
            await asyncio.gather(*(self._client(number, end) for number in range(clients)))
            for each in beside:
                each.cancel()

    def unexpected(self) -> list[str]:
        """Responses that are not documented for their kind."""
        expected = {kind.name: kind.expected for kind in self._kinds}
        return sorted(
            f"{name}: {status}"
            for name, status in self.statuses
            if status != expected[name] and status not in _BUSY
        )

    async def _client(self, number: int, end: float) -> None:
        while time.perf_counter() < end:
            kind = self._kinds[number % len(self._kinds)]
            number += 1
            try:
                response = await self._http.post(
                    f"/predict?{kind.query}", content=kind.body, headers={"Content-Type": kind.media_type}
                )
            except httpx.TransportError as error:
                self.errors[f"{kind.name}: {error!r}"] += 1
                await asyncio.sleep(_SAMPLE_S)
                continue
            self.statuses[kind.name, response.status_code] += 1
            await asyncio.sleep(float(response.headers.get("Retry-After", 0)))

    def hear(self, line: str) -> None:
        """A line of the server's log."""
        self.tracebacks += "Traceback" in line
        if "reloaded: " in line or "reload failed" in line:
            self.curve_s.append(round(time.perf_counter() - self._start))
            self.reloading = False

    async def _watch(self, pid: int) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            if (memory := resident_megabytes(pid)) is not None:
                self.peak = max(self.peak, memory)
                if not self.reloading:
                    self.memory.append((len(self.curve_s), memory))

    async def _reload(self, pid: int) -> None:
        while True:
            await asyncio.sleep(_RELOAD_S)
            self.reloading = True
            os.kill(pid, signal.SIGHUP)
            while self.reloading:
                await asyncio.sleep(_SAMPLE_S)

    async def _connect(self, length: int) -> asyncio.StreamWriter:
        host, port = str(self._address.hostname), self._address.port
        _, writer = await asyncio.open_connection(host, port)
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
        writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
        return writer

    async def _drip(self) -> None:
        """Send bodies a byte a second: the server cuts them off when their time is over."""
        while True:
            with suppress(OSError):  # cut off, as it has to be
                writer = await self._connect(1000)
                for _ in range(1000):
                    writer.write(b"\xff")
                    await writer.drain()
                    await asyncio.sleep(1)
            await asyncio.sleep(1)

    async def _leave(self) -> None:
        """Send whole requests, and close the connection before their response."""
        body = self._kinds[0].body
        while True:
            with suppress(OSError):  # the server was quicker
                writer = await self._connect(len(body))
                writer.write(body)
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.close()
            await asyncio.sleep(1)


def medians(samples: Sequence[tuple[int, float]], ends: Sequence[float]) -> list[tuple[float, float]]:
    """When each reload ended (seconds; first the start), and the median memory (MB) from then to the next."""
    spans: dict[int, list[float]] = {}
    for reloads, megabytes in samples:
        spans.setdefault(reloads, []).append(megabytes)
    return [([0.0, *ends][span], statistics.median(values)) for span, values in spans.items()]


def deviation(curve: Sequence[tuple[float, float]]) -> float:
    """The largest relative difference of the memory from its mean after the warm-up."""
    warm = min(curve[-1][0] / 3, _WARM_UP_S)
    late = [megabytes for seconds, megabytes in curve if seconds >= warm]
    mean = statistics.fmean(late)
    return max(abs(megabytes / mean - 1) for megabytes in late)


def main(
    seconds: Annotated[float, typer.Option(help="How long the clients send.")] = 3600.0,
    image: Annotated[Path, typer.Option(help="A good image.", exists=True)] = IMAGE,
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads of an inference.")] = 2,
    concurrency: Annotated[int, typer.Option(help="The server's.")] = 2,
    queue_size: Annotated[int, typer.Option(help="The server's.")] = 8,
) -> None:
    """Start a server, soak it, and print what happened."""
    bounds = {"--concurrency": concurrency, "--queue-size": queue_size, "--upload-s": 5}
    options = [str(part) for option in bounds.items() for part in option]
    clients = 2 * (concurrency + queue_size)
    soak = Soak(kinds(image.read_bytes()))
    with gateway(bundle, threads, *options, on_line=soak.hear) as server:
        asyncio.run(soak.run(server.url, server.pid, clients, seconds))
    curve = medians(soak.memory, soak.curve_s)
    off = deviation(curve)
    verdict = {
        "only_documented": not soak.unexpected() and not soak.errors and not soak.tracebacks,
        "memory_steady": off <= _STEADY,
    }
    by_kind: dict[str, dict[int, int]] = {}
    for (name, status), count in sorted(soak.statuses.items()):
        by_kind.setdefault(name, {})[status] = count
    report = {
        "machine": machine(threads),
        "seconds": seconds,
        "clients": clients,
        "reloads": len(soak.curve_s),
        "statuses": by_kind,
        "unexpected": soak.unexpected(),
        "transport_errors": dict(soak.errors),
        "tracebacks": soak.tracebacks,
        "resident_mb": {
            "deviation_after_warm_up": round(off, 4),
            "peak": soak.peak,
            "medians": curve,
        },
        "verdict": verdict,
    }
    print(json.dumps(report))
    if not all(verdict.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
