"""Results that are stored once where TensorRT would compute them again for each of their readers.

TensorRT fuses arithmetic into what reads it, and writes the whole expression out for every element that is
read: four for a pixel of an upsampled map, several for a selection of channels. Of the guided filter's
solution (`training.guided_filter`) that made one kernel of 68 MB of source. A convolution is never fused
that way: one with weights of one, channel by channel, gives what it was given.
"""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.onnx.nodes import CONTRACTIONS, Nodes, replace_nodes

LONG = 10
"""Nodes above which a result is stored: computing a short expression again costs less than memory does."""
_STORED = CONTRACTIONS | {
    *("AveragePool", "GlobalAveragePool", "GridSample", "MaxPool", "Softmax", "TopK"),
    *("InstanceNormalization", "LayerNormalization", "BatchNormalization"),
}
"""Operators whose results TensorRT stores."""


def materialize(model: onnx.ModelProto) -> None:
    """Store, in place, float32 maps [B,C,h,w] that took long arithmetic and are read several times each.

    Readers that count are bilinear upsampling and selections of channels.
    """
    nodes = Nodes(model)
    shapes = {
        entry.name: [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        for entry in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
        if entry.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    stored: set[str] = set()
    rewritten: list[NodeProto] = []
    for node in nodes.nodes:
        name = node.input[0] if node.input else ""
        shape = shapes.get(name, [])
        if len(shape) == 4 and shape[1] and _reads_again(node, nodes):
            if name not in stored and _arithmetic(nodes, name, stored) > LONG:
                stored.add(name)
                weight = np.ones((shape[1], 1, 1, 1), np.float32)
                model.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.ones"))
                rewritten.append(
                    helper.make_node(
                        "Conv", [name, f"{name}.ones"], [f"{name}.stored"], f"{name}.store", group=shape[1]
                    )
                )
            if name in stored:
                node.input[0] = f"{name}.stored"
        rewritten.append(node)
    replace_nodes(model, rewritten)


def _reads_again(node: NodeProto, nodes: Nodes) -> bool:
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type == "Resize":
        return bool(attributes.get("mode") == b"linear")
    return node.op_type == "Gather" and attributes.get("axis") == 1 and node.input[1] in nodes.constants


def _arithmetic(nodes: Nodes, tensor: str, stored: set[str]) -> int:
    """Nodes between ``tensor`` and what is stored before it."""
    found: set[int] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        index = nodes.producer.get(name)
        if index is None or index in found or name in stored or nodes.nodes[index].op_type in _STORED:
            continue
        found.add(index)
        waiting += nodes.nodes[index].input
    return len(found)
