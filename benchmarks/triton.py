"""Triton against the embedded engine, same model and cores, in one run: ``python -m benchmarks.triton``.

Prints JSON: images per second of ONNX Runtime in this process, and of a Triton on this machine (its Python
backend, `export.triton.local`) through gRPC, with and without shared memory; their ratios to the engine; the
bytes of a request and its answer on the wire. The client works on the same cores as the server. Rounds of all
three alternate, and the median counts, so that a change of the machine's load meets all of them.
"""

import json
import socket
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Annotated

import numpy as np
import onnxruntime as ort
import typer
from numpy.typing import NDArray

from benchmarks.machine import machine
from export.triton import Serving, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, MODEL_FILE, Manifest
from mtcp_serve.clients import TritonClient


def throughput(predict: Callable[[], object], images: int, callers: int) -> float:
    """Images per second of ``callers`` threads, each of which sends the next when the last is answered."""
    with ThreadPoolExecutor(callers) as pool:
        start = time.perf_counter()
        for future in [pool.submit(predict) for _ in range(images)]:
            future.result()
        return images / (time.perf_counter() - start)


class CountingProxy:
    """Passes one connection on to ``port`` and counts its bytes, sent and received."""

    def __init__(self, port: int) -> None:
        self.sent = self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._serve, args=(port,), daemon=True).start()

    def _serve(self, port: int) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        Thread(target=self._pass, args=(near, far, "sent"), daemon=True).start()
        self._pass(far, near, "received")

    def _pass(self, source: socket.socket, sink: socket.socket, counter: str) -> None:
        with suppress(OSError):  # either side has closed
            while data := source.recv(2**18):
                setattr(self, counter, getattr(self, counter) + len(data))
                sink.sendall(data)
        sink.close()


def wire_bytes(triton: LocalTriton, image: NDArray[np.uint8], shared: bool) -> dict[str, int]:
    """Bytes on the socket for one image: gRPC, HTTP/2 and all; mean of ten after the first."""
    proxy = CountingProxy(triton.grpc_port)
    with TritonClient(f"127.0.0.1:{proxy.port}", shared_memory=shared) as client:
        client.infer(image)
        sent, received = proxy.sent, proxy.received
        for _ in range(10):
            client.infer(image)
        return {"request": (proxy.sent - sent) // 10, "answer": (proxy.received - received) // 10}


def main(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")] = DEFAULT_BUNDLE,
    threads: Annotated[int, typer.Option(help="CPU threads per inference.")] = 2,
    callers: Annotated[int, typer.Option(help="Requests in flight.")] = 2,
    images: Annotated[int, typer.Option(help="Images of each kind in a round.")] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds; the median counts.")] = 3,
) -> None:
    """Compare a Triton on this machine with the engine in this process."""
    where = machine(threads)
    manifest = Manifest.load(bundle)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(bundle / MODEL_FILE, options, providers=["CPUExecutionProvider"])
    size = (1, manifest.input.height, manifest.input.width, 3)
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        write_repository(Bundle.open(bundle), repository, backend="python", serving=Serving(threads=threads))
        with (
            LocalTriton(repository) as triton,
            TritonClient(triton.grpc) as plain,
            TritonClient(triton.grpc, shared_memory=True) as shared,
        ):
            calls: dict[str, Callable[[], object]] = {
                "engine": partial(session.run, None, {IMAGE_TENSOR: image}),
                "triton": partial(plain.infer, image),
                "triton, shared memory": partial(shared.infer, image),
            }
            for call in calls.values():
                throughput(call, 2 * callers, callers)
            found: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    found[name].append(throughput(call, images, callers))
            on_the_wire = {
                "grpc": wire_bytes(triton, image, shared=False),
                "grpc, shared memory": wire_bytes(triton, image, shared=True),
            }
    rates = {name: float(np.median(values)) for name, values in found.items()}
    report = {
        "machine": where,
        "model": f"{manifest.name} {manifest.version}, {manifest.input.height}x{manifest.input.width}",
        "in_flight": callers,
        "images_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "rounds": {name: [round(value, 2) for value in values] for name, values in found.items()},
        "over_engine": {name: round(rate / rates["engine"], 2) for name, rate in rates.items()},
        "bytes_per_image": on_the_wire,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
