"""From a float32 graph to one that says for each node in which precision it is computed.

Weakly typed builds are gone from TensorRT 11: what is computed in FP16 must be said in the graph.
The converters at hand (``onnxruntime.transformers.float16``, onnxconverter-common) round every value that
leaves a float32 node, also on its way to the next one, and give up float32 weights that an FP16 node shares;
here a node kept in FP32 keeps its values, and a Cast stands only where the precision changes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper

from export.fp16.fp32_nodes import find_fp32_nodes
from export.onnx.convert import OPSET, check_operators
from export.onnx.fold_weights import fold_weights
from export.onnx.fp16_weights import load_fp16_weights
from export.onnx.nodes import SHAPE_READERS, Nodes, describe_copies, replace_nodes, typed_tensors

NEITHER = frozenset({"Cast", "Constant", "ConstantOfShape"}) | SHAPE_READERS
"""Operators that read any type, or whose output type is an attribute; they stay as they are."""
_FLOATS = {False: TensorProto.FLOAT, True: TensorProto.FLOAT16}


@dataclass(frozen=True)
class Mixed:
    """A mixed-precision model and what became of its nodes that compute floating-point numbers."""

    model: onnx.ModelProto
    fp16: Counter[str]
    """Nodes computed in FP16, by operator."""
    total: Counter[str]
    """All such nodes, by operator."""
    kept: dict[str, int]
    """Nodes kept in float32, by reason; a node may be in several."""

    @property
    def share(self) -> float:
        """Part of the nodes that is computed in FP16, 0 to 1."""
        return self.fp16.total() / max(self.total.total(), 1)


def to_mixed_precision(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Mixed:
    """FP16 for every node that `export.fp16.fp32_nodes` does not keep in FP32; ``model`` is left as it is.

    Args:
        model: a float32 graph of `OPSET`; weights may be stored in FP16 (`export.onnx.fp16_weights`).
            Inputs and outputs keep their types.
        ranges: the largest magnitude by tensor; see `export.fp16.ranges.measure_ranges`.

    Raises:
        ExportError: the graph has control flow, or its types contradict one another.
    """
    model = load_fp16_weights(model)
    fold_weights(model)
    nodes = Nodes(model)
    floats = typed_tensors(model, TensorProto.FLOAT)
    weights = {
        name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        for name, tensor in nodes.constants.items()
        if name in floats
    }
    reasons = find_fp32_nodes(nodes, {**weights, **ranges})
    kept = set().union(*reasons.values())
    computing = [
        index
        for index, node in enumerate(nodes.nodes)
        if node.op_type not in NEITHER and not floats.isdisjoint([*node.input, *node.output])
    ]
    chosen = {index for index in computing if index not in kept}
    _rewrite(model, nodes, floats, chosen)
    _check(model)
    return Mixed(
        model,
        fp16=Counter(nodes.nodes[index].op_type for index in sorted(chosen)),
        total=Counter(nodes.nodes[index].op_type for index in computing),
        kept={name: len(members & set(computing)) for name, members in reasons.items()},
    )


def _rewrite(model: onnx.ModelProto, nodes: Nodes, floats: set[str], chosen: set[int]) -> None:
    """Give the nodes in ``chosen`` FP16 to read and all others float32; at most one Cast a tensor."""
    fp16 = {name for index in chosen for name in nodes.nodes[index].output if name in floats}
    copies: dict[str, str] = {}
    rewritten: list[NodeProto] = []
    for index, node in enumerate(nodes.nodes):
        for slot, name in enumerate(node.input):
            if name not in floats or node.op_type in NEITHER:
                continue
            wants_fp16 = index in chosen and _takes_fp16(node, slot)
            if wants_fp16 == (name in fp16):
                continue
            if name not in copies:
                copies[name] = f"{name}.fp16" if wants_fp16 else f"{name}.float"
                if name in nodes.constants:
                    model.graph.initializer.append(_to_fp16(nodes.constants[name], copies[name]))
                else:
                    rewritten.append(_cast(name, copies[name], _FLOATS[wants_fp16]))
            node.input[slot] = copies[name]
        rewritten.append(node)
    replace_nodes(model, rewritten)
    describe_copies(model, {copy: name for name, copy in copies.items()})
    for entry in model.graph.value_info:
        if entry.name in floats | set(copies.values()):
            is_fp16 = entry.name in fp16 or entry.name.endswith(".fp16")
            entry.type.tensor_type.elem_type = _FLOATS[is_fp16]


def _cast(name: str, into: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [name], [into], name=f"{into}.cast", to=to)


def _takes_fp16(node: NodeProto, slot: int) -> bool:
    """Whether ONNX lets this input of the node be float16; the scales of Resize are float32, for one."""
    schema = defs.get_schema(node.op_type, OPSET)
    parameter = schema.inputs[min(slot, len(schema.inputs) - 1)]
    return "tensor(float16)" in parameter.types


def _to_fp16(tensor: TensorProto, name: str) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _check(model: onnx.ModelProto) -> None:
    check_operators(model)
    typed_tensors(model, TensorProto.FLOAT16)
