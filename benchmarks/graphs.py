"""What one ONNX graph costs on a CPU, and answers, beside another: ``python -m benchmarks.graphs OLD NEW``.

Both run in turns on the same images in one process. Time is the processor's, of one thread, so that other
work on the machine counts little; it is the least of all rounds. With more threads it is the clock's, and the
machine should be quiet. Prints JSON: nodes, milliseconds, their ratio, and how far the maps differ: pixels
for labels, the largest difference for numbers. Exit status 2 if a file is no such graph or image.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime as ort
import typer
from PIL import Image

from benchmarks.machine import machine
from export.errors import told
from mtcp_serve.bundle.manifest import IMAGE_TENSOR


class GraphError(ValueError):
    """A file is not what the command compares."""


def _open(graph: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        why = " ".join(str(error).split())
        raise GraphError(f"{graph} is no ONNX graph that ONNX Runtime runs: {why}") from error
    inputs = [(tensor.name, tensor.type, tensor.shape) for tensor in session.get_inputs()]
    match inputs:
        case [(name, "tensor(uint8)", [_, int(), int(), 3])] if name == IMAGE_TENSOR:
            return session
    raise GraphError(f"{graph} is not exported by this project: it takes {inputs}, not uint8 image [N,H,W,3]")


def _images(paths: list[Path], session: ort.InferenceSession) -> list[np.ndarray]:
    """The images at the size of the graph, RGB [1,H,W,3]; one of noise where there is none."""
    _, height, width, _ = session.get_inputs()[0].shape
    if not paths:
        return [np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)]
    found = []
    for path in paths:
        try:
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB").resize((width, height)))[None])
        except (OSError, Image.DecompressionBombError) as error:
            raise GraphError(f"{path} cannot be read as an image: {error}") from error
    return found


def _differences(old: list[np.ndarray], new: list[np.ndarray]) -> list[float]:
    return [
        float((a != b).sum()) if a.dtype == np.uint8 else float(np.abs(a - b).max())
        for a, b in zip(old, new, strict=True)
    ]


def compare(graphs: list[Path], images: list[Path], rounds: int, threads: int) -> dict[str, Any]:
    """What the command prints; maps are compared where both graphs take images of the same size.

    Raises:
        GraphError: a file is no graph or image, or the graphs give different maps.
    """
    sessions = [_open(graph, threads) for graph in graphs]
    given = [sorted((output.name, output.type) for output in session.get_outputs()) for session in sessions]
    if given[0] != given[1]:
        raise GraphError(f"the graphs give different maps: {given[0]} and {given[1]}")
    pictures = [_images(images, session) for session in sessions]
    clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter
    least = [float("inf")] * len(sessions)
    for _ in range(rounds):
        for index, session in enumerate(sessions):
            start = clock()
            session.run(None, {IMAGE_TENSOR: pictures[index][0]})
            least[index] = min(least[index], clock() - start)
    report: dict[str, Any] = {
        **machine(threads),
        "nodes": [len(onnx.load(graph, load_external_data=False).graph.node) for graph in graphs],
        "ms": [round(1000 * value, 3) for value in least],
        "ratio": round(least[1] / least[0], 3),
    }
    if pictures[0][0].shape == pictures[1][0].shape:
        names = [output.name for output in sessions[0].get_outputs()]
        differences = [
            _differences(*(session.run(names, {IMAGE_TENSOR: picture}) for session in sessions))
            for picture in pictures[0]
        ]
        report["images"] = len(differences)
        report["largest_difference"] = dict(zip(names, np.max(differences, axis=0).tolist(), strict=True))
    return report


def main(
    old: Annotated[Path, typer.Argument(help="An exported graph.", exists=True, dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="Another.", exists=True, dir_okay=False)],
    images: Annotated[list[Path] | None, typer.Argument(help="Images; noise if none.", exists=True)] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each graph, in turns.", min=1)] = 20,
    threads: Annotated[int, typer.Option(help="Of ONNX Runtime; one is timed by its own clock.", min=1)] = 1,
) -> None:
    """Compare the time and the maps of two exported graphs."""
    with told(GraphError):
        report = compare([old, new], images or [], rounds, threads)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
