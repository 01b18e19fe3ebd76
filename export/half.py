"""Weights stored in half precision, for a file of half the size."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 1024
"""Elements; tensors with fewer (biases, scales, shape constants) stay float32, they weigh nothing."""


def store_weights_as_half(model: onnx.ModelProto) -> None:
    """Replace each large float32 initializer, in place, by a float16 one and a Cast back.

    The graph still computes in float32: a runtime folds the casts when it loads the model. Only the weights
    are rounded, to 11 significant bits, so parity must be checked afterwards. A tensor with values beyond the
    range of float16 is left alone.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, half = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
