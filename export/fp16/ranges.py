"""Activation ranges: how large the numbers inside a graph get."""

from collections.abc import Iterable, Set

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.onnx.nodes import MOVES, describe_copies
from export.validation_images import RgbImage
from mtcp_serve.bundle.manifest import IMAGE_TENSOR


def measure_ranges(model: onnx.ModelProto, tensors: Set[str], images: Iterable[RgbImage]) -> dict[str, float]:
    """The largest magnitude of each float32 weight and, over ``images`` (RGB uint8 [H,W,3]), tensor.

    The maxima are taken inside the graph, so that no activation outlives its use.
    """
    ranges = {
        tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        for tensor in model.graph.initializer
        if tensor.name in tensors
    }
    made = [
        name
        for node in model.graph.node
        if node.op_type not in MOVES
        for name in node.output
        if name in tensors
    ]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    magnitudes: dict[str, str] = {}
    for index, name in enumerate(made):
        magnitude, largest = f"largest.{index}.magnitude", f"largest.{index}"
        magnitudes[magnitude] = name
        probe.graph.node.append(helper.make_node("Abs", [name], [magnitude]))
        probe.graph.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
        probe.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    describe_copies(probe, magnitudes)
    session = open_session(probe)
    runs = [session.run(None, {IMAGE_TENSOR: image[None]}) for image in images]
    ranges |= dict(zip(made, np.max(np.array(runs, dtype=np.float64), axis=0).tolist(), strict=True))
    for node in model.graph.node:
        if node.op_type in MOVES:
            ranges |= dict.fromkeys(
                tensors & set(node.output), max(ranges.get(name, 0.0) for name in node.input)
            )
    return ranges


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """Open a graph for a few runs: unoptimised, for optimising would take longer than they do."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
