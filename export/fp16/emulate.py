"""FP16 on a processor that has none."""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.onnx.nodes import MOVES, describe_copies, replace_nodes, typed_tensors

_SPLITTER = "fp16.splitter"


def emulate_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to FP16 wherever ``model`` does.

    ONNX Runtime has no FP16 kernels for x86: it computes such nodes in float32 and drops the rounding between
    them, so that a poor FP16 graph looks perfect there. Here the result of every FP16 node is rounded to 11
    significant bits (Veltkamp's splitting, in float32 arithmetic); sums inside a node stay float32, as in
    tensor cores. Overflow and subnormals are not emulated: `export.fp16.fp32_nodes`
    keeps both out of the graph.
    """
    emulated = onnx.ModelProto()
    emulated.CopyFrom(model)
    fp16 = typed_tensors(model, TensorProto.FLOAT16)
    for tensor in emulated.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    splitter = numpy_helper.from_array(np.array(2**13 + 1, np.float32), _SPLITTER)
    emulated.graph.initializer.append(splitter)
    rewritten: list[NodeProto] = []
    steps: dict[str, str] = {}
    for node in emulated.graph.node:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
        rewritten.append(node)
        if node.op_type not in MOVES:
            for slot, name in enumerate(node.output):
                if name in fp16:
                    node.output[slot] = f"{name}.exact"
                    rewritten += _round(f"{name}.exact", name)
                    steps |= dict.fromkeys((f"{name}.exact", f"{name}.product", f"{name}.rest"), name)
    replace_nodes(emulated, rewritten)
    describe_copies(emulated, steps)
    for entry in emulated.graph.value_info:
        if entry.type.tensor_type.elem_type == TensorProto.FLOAT16:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT
    return emulated


def _round(name: str, into: str) -> list[NodeProto]:
    """Nodes that round a float32 tensor to 11 significant bits: with c = (2^13 + 1) x, c - (c - x)."""
    product, rest = f"{into}.product", f"{into}.rest"
    return [
        helper.make_node("Mul", [name, _SPLITTER], [product]),
        helper.make_node("Sub", [product, name], [rest]),
        helper.make_node("Sub", [product, rest], [into]),
    ]
