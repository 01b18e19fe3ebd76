"""Weights stored in FP16 without any loss, for a file of half the size."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.onnx.nodes import replace_nodes

LARGE = 8192
"""Elements; tensors with no more stay float32: they weigh little, and optimizers undo their casts."""


@torch.no_grad()
def round_to_fp16(network: nn.Module) -> None:
    """Round each large parameter, in place, to numbers that float16 holds: 11 significant bits.

    The rounded network is then what is deployed and what parity is evaluated against. A parameter with values
    beyond the range of float16 is left alone.
    """
    for parameter in network.parameters():
        rounded = parameter.half().to(parameter.dtype)
        if parameter.numel() > LARGE and rounded.isfinite().all():
            parameter.copy_(rounded)


def store_exact_fp16(model: onnx.ModelProto) -> None:
    """Replace each large float32 initializer that float16 holds exactly by that and a Cast back, in place.

    Nothing changes in value, and the graph still computes in float32: a runtime folds the casts when it loads
    the model. Call it before an optimizer merges batch normalisation into the weights, which makes them
    anything but exact.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        fp16 = values.half()
        if values.numel() <= LARGE or not torch.equal(fp16.float(), values):
            continue
        name, stored = tensor.name, f"{tensor.name}.fp16"
        tensor.CopyFrom(numpy_helper.from_array(fp16.numpy(), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    replace_nodes(model, [*casts, *model.graph.node])


def load_fp16_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` whose weights are float32 again: what `store_exact_fp16` does, undone."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in whole.graph.initializer}
    nodes = []
    for node in whole.graph.node:
        tensor = stored.get(node.input[0]) if _casts_to_float(node) else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        whole.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    replace_nodes(whole, nodes)
    return whole


def _casts_to_float(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i == TensorProto.FLOAT for attribute in node.attribute
    )
