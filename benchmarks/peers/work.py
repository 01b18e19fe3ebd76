"""What every peer does with an image: this package's decoding and encoding, the engine's own session."""

import json
import os
from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import IMAGE_TENSOR
from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.png_file import write_png

Format = Literal["npz", "json"]
"""Arrays at the model's size, or PNGs at the image's in JSON."""
Run = Callable[[NDArray[np.uint8]], list[NDArray[Any]]]
"""The outputs of the graph, in the manifest's order, for ``[1, height, width, 3]``."""
BUNDLE, ENGINE, THREADS = "PEER_BUNDLE", "PEER_ENGINE", "PEER_THREADS"
"""Variables that say what a peer runs."""


class Work:
    """Decode, run, encode; the graph is opened once."""

    def __init__(self, bundle: Bundle, engine: str, threads: int) -> None:
        self.manifest = bundle.manifest
        outputs = [task.output for task in self.manifest.tasks]
        self._run = {"onnxruntime": onnx_runtime, "openvino": open_vino}[engine](bundle, outputs, threads)

    @classmethod
    def of_environment(cls) -> Self:
        """What the variables above say."""
        return cls(Bundle.open(os.environ[BUNDLE]), os.environ[ENGINE], int(os.environ[THREADS]))

    def decode(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """The image as the graph takes it, and its own height and width."""
        size = self.manifest.input.height, self.manifest.input.width
        image = decode(data, ImageLimits(), enough=2 * max(size))
        return image.resized(*size)[None], (image.info.height, image.info.width)

    def infer(self, image: NDArray[np.uint8]) -> list[Map]:
        """The maps of every task."""
        return [
            task.to_map(array[0]) for task, array in zip(self.manifest.tasks, self._run(image), strict=True)
        ]

    def encode(self, maps: list[Map], size: tuple[int, int], form: Format) -> bytes:
        """The answer."""
        named = zip(self.manifest.tasks, maps, strict=True)
        if form == "npz":
            buffer = BytesIO()
            np.savez(buffer, allow_pickle=False, **{task.name: values for task, values in named})
            return buffer.getvalue()
        files = {task.name: write_png(task.to_image(task.resize(values, *size))) for task, values in named}
        return json.dumps({name: b64encode(data).decode("ascii") for name, data in files.items()}).encode()

    def answer(self, data: bytes, form: Format) -> bytes:
        """All of it."""
        image, size = self.decode(data)
        return self.encode(self.infer(image), size, form)


def onnx_runtime(bundle: Bundle, outputs: list[str], threads: int) -> Run:
    """A session of ONNX Runtime, as its documentation opens one."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(bundle.graph(), options, providers=["CPUExecutionProvider"])
    return lambda image: list(session.run(outputs, {IMAGE_TENSOR: image}))


def open_vino(bundle: Bundle, outputs: list[str], threads: int) -> Run:
    """A model compiled by OpenVINO with its defaults, bfloat16 where the processor has it."""
    from mtcp_serve.engines.openvino import bf16_problem, compile_graph

    model = compile_graph(Path(bundle.graph()), "fp32" if bf16_problem() else "bf16", threads)

    def run(image: NDArray[np.uint8]) -> list[NDArray[Any]]:
        request = model.create_infer_request()
        request.infer([image])
        return [request.get_tensor(name).data.copy() for name in outputs]

    return run
