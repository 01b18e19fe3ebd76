"""GELU in the order of operators that runtimes know, and compute as one."""

import onnx
from onnx import numpy_helper

from export.onnx.nodes import replace_nodes


def spell_gelu(model: onnx.ModelProto) -> None:
    """Turn x * (half * (1 + erf)) into half * (x * (1 + erf)), in place.

    PyTorch's exporter writes the first; ONNX Runtime's fusion looks for the second, whose value is the same
    to rounding.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1

    def is_half(name: str) -> bool:
        tensor = constants.get(name)
        return tensor is not None and not tensor.dims and float(numpy_helper.to_array(tensor)) == 0.5

    def made_by(name: str, operator: str) -> onnx.NodeProto | None:
        node = producers.get(name)
        return node if node is not None and node.op_type == operator else None

    for outer in graph.node:
        if outer.op_type != "Mul":
            continue
        for slot in (0, 1):
            inner = made_by(outer.input[slot], "Mul")
            if inner is None or readers[inner.output[0]] != 1:
                continue
            halves = [index for index in (0, 1) if is_half(inner.input[index])]
            if len(halves) != 1:
                continue
            half, shifted = inner.input[halves[0]], inner.input[1 - halves[0]]
            sum_ = made_by(shifted, "Add")
            if sum_ is None or not any(made_by(name, "Erf") for name in sum_.input):
                continue
            x = outer.input[1 - slot]
            del inner.input[:], outer.input[:]
            inner.input.extend([x, shifted])
            outer.input.extend([inner.output[0], half])
            break
    replace_nodes(model, list(graph.node))
