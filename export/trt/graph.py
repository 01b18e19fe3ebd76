"""The graph that TensorRT gets."""

from typing import Literal

import onnx
from onnx import NodeProto, TensorProto, helper

from export.onnx.convert import check_operators
from export.onnx.layer_norm import restore_layer_norms
from export.onnx.nodes import replace_nodes, typed_tensors
from export.onnx.shapes import fold_shapes
from export.trt.deformable import gather_samples
from export.trt.materialize import materialize
from mtcp_serve.bundle.manifest import IMAGE_TENSOR

Deformable = Literal["gather", "gridsample"]


def for_tensorrt(model: onnx.ModelProto, deformable: Deformable) -> onnx.ModelProto:
    """A copy of a mixed-precision graph as TensorRT reads it correctly; the values are the same.

    TensorRT takes uint8 for inputs and outputs only and converts it from and to floating point only, so the
    image becomes float32 before anything else and integers become float32 before uint8.
    Slices and reshapes get constant shapes (`export.onnx.shapes`), layer norms are LayerNormalization again
    (`export.onnx.layer_norm`), and what TensorRT would compute again for
    each reader is stored (`export.trt.materialize`).

    Args:
        model: from `export.fp16.mixed.to_mixed_precision`.
        deformable: ``gather`` spells GridSample as gathers (`export.trt.deformable`).

    Raises:
        ExportError: the graph has operators that TensorRT misreads, or sampling that cannot be spelled.
    """
    check_operators(model)
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    if deformable == "gather":
        prepared = gather_samples(prepared)
    _convert_ends(prepared)
    fold_shapes(prepared)
    restore_layer_norms(prepared)
    materialize(prepared)
    check_operators(prepared)
    typed_tensors(prepared, TensorProto.FLOAT)
    return prepared


def _convert_ends(model: onnx.ModelProto) -> None:
    small = typed_tensors(model, TensorProto.UINT8) - {entry.name for entry in model.graph.output}
    floating = {
        name for kind in (TensorProto.FLOAT, TensorProto.FLOAT16) for name in typed_tensors(model, kind)
    }
    image = f"{IMAGE_TENSOR}.float"
    nodes = [_cast(IMAGE_TENSOR, image, TensorProto.FLOAT)]
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if name == IMAGE_TENSOR:
                node.input[slot] = image
        to_small = node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.UINT8
        if to_small and node.input[0] not in floating:
            between = f"{node.output[0]}.float"
            nodes.append(_cast(node.input[0], between, TensorProto.FLOAT))
            node.input[0] = between
        nodes.append(node)
    replace_nodes(model, nodes)
    for entry in model.graph.value_info:
        if entry.name in small:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT


def _cast(name: str, into: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [into], name=f"{into}.cast", to=to)
