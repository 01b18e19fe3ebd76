"""Layer norms as the operator that a runtime computes fast.

ONNX Runtime (1.31) hands out LayerNormalization token by token: on two threads it takes longer than on one,
while InstanceNormalization of tokens as images with one channel takes three fifths of that on one. TensorRT
has a layer for LayerNormalization alone.
"""

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from export.onnx.nodes import replace_nodes
from export.onnx.shapes import known_shapes


def spell_layer_norms(model: onnx.ModelProto) -> None:
    """Make InstanceNormalization, in place, of norms over the last axis that scale and shift it as one.

    `training.model.stacked.TaskLayerNorm` leaves it to what follows to scale and shift channels.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = known_shapes(model)
    nodes: list[NodeProto] = []
    added: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        shape = shapes.get(node.output[0])
        factors = _factors(node, constants)
        if factors is None or shape is None or shape.count(None) > 1 or shape[-1] is None:
            nodes.append(node)
            continue
        name, tokens = node.output[0], [-1 if side is None else side for side in shape]
        inputs = [f"{name}.rows", f"{name}.scale", f"{name}.shift"]
        added |= {f"{name}.as_rows": np.array([-1, 1, shape[-1]]), f"{name}.as_tokens": np.array(tokens)}
        added |= {
            key: np.array([factor], np.float32) for key, factor in zip(inputs[1:], factors, strict=True)
        }
        epsilon = next((entry.f for entry in node.attribute if entry.name == "epsilon"), 1e-5)
        made = [
            helper.make_node("Reshape", [node.input[0], f"{name}.as_rows"], [inputs[0]]),
            helper.make_node("InstanceNormalization", inputs, [f"{name}.normal"], epsilon=epsilon),
            helper.make_node("Reshape", [f"{name}.normal", f"{name}.as_tokens"], [name]),
        ]
        for part in made:
            part.name = node.name
            part.metadata_props.extend(node.metadata_props)
        nodes += made
    replace_nodes(model, nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())


def restore_layer_norms(model: onnx.ModelProto) -> None:
    """Make LayerNormalization, in place, of what `spell_layer_norms` has made."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = known_shapes(model)
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "InstanceNormalization" else None
        if shape is None or len(shape) != 3 or shape[1] != 1 or shape[2] is None:
            continue
        node.op_type = "LayerNormalization"
        for slot in (1, 2):
            wide = f"{node.output[0]}.{slot}"
            values = np.repeat(constants[node.input[slot]], shape[2])
            model.graph.initializer.append(numpy_helper.from_array(values, wide))
            node.input[slot] = wide
    replace_nodes(model, list(model.graph.node))


def _factors(node: NodeProto, constants: dict[str, np.ndarray]) -> tuple[float, float] | None:
    """Scale and shift of a LayerNormalization over the last axis, where they are those of every channel."""
    if node.op_type != "LayerNormalization" or len(node.output) != 1:
        return None
    if any(entry.name == "axis" and entry.i != -1 for entry in node.attribute):
        return None
    found = [constants.get(name) for name in node.input[1:]]
    if any(values is None or np.ptp(values) for values in found):
        return None
    scale, *shift = (float(values.flat[0]) for values in found if values is not None)
    return scale, shift[0] if shift else 0.0
