"""An index over the nodes of an ONNX graph: who makes a tensor, who reads it, which module it belongs to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto

from export.errors import ExportError

CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""Operators that sum products over channels or positions."""
MOVES = frozenset(
    {
        *("Concat", "Expand", "Gather", "Identity", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)
"""Operators that give values which they were given (or zero)."""
SHAPE_READERS = frozenset({"Shape", "Size"})


class Nodes:
    """The nodes of a graph by index, in the graph's order, with what connects them.

    Raises:
        ExportError: the graph has control flow, which no exported network here needs.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {entry.name for entry in model.graph.input}
        self.outputs = [entry.name for entry in model.graph.output]
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for index, node in enumerate(self.nodes):
            if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
                raise ExportError(f"the graph has control flow: {node.op_type} ({node.name})")
            for name in node.output:
                self.producer[name] = index
            for name in node.input:
                self.consumers[name].append(index)

    def of(self, *operators: str) -> set[int]:
        """All nodes with one of these operators."""
        return {index for index, node in enumerate(self.nodes) if node.op_type in operators}

    def upstream(self, tensors: Iterable[str], *, contraction: bool) -> set[int]:
        """The nodes that compute ``tensors``, back to the nearest contractions, with those or without."""
        found: set[int] = set()
        waiting = [self.producer[name] for name in tensors if name in self.producer]
        while waiting:
            index = waiting.pop()
            node = self.nodes[index]
            if index in found or (node.op_type in CONTRACTIONS and not contraction):
                continue
            found.add(index)
            if node.op_type not in CONTRACTIONS:
                waiting += [self.producer[name] for name in node.input if name in self.producer]
        return found

    @cached_property
    def independent(self) -> set[int]:
        """Nodes whose values no input of the graph changes; its shape may."""
        dependent = set(self.inputs)
        free = set()
        for index, node in enumerate(self.nodes):
            if node.op_type in SHAPE_READERS or dependent.isdisjoint(node.input):
                free.add(index)
            else:
                dependent.update(node.output)
        return free

    @cached_property
    def modules(self) -> list[str]:
        """The PyTorch module of each node.

        `export.onnx.convert` puts it into the name. A graph without such names tells it by its parameters:
        a node with parameters belongs to their module; any other to the innermost module that holds all
        nodes that feed it, e.g. the product of ``cfm.query`` and ``cfm.key`` to ``cfm``.
        """
        modules: list[str] = []
        for node in self.nodes:
            module, slash, _ = node.name.rpartition("/")
            if slash:
                modules.append(module)
                continue
            owners = [
                name.rpartition(".")[0] for name in node.input if name in self.constants and "." in name
            ] or [
                modules[self.producer[name]]
                for name in node.input
                if name in self.producer and modules[self.producer[name]]
            ]
            modules.append(_common(owners))
        return modules


def read_model(path: Path) -> onnx.ModelProto:
    """The ONNX model in the file ``path``, its weights included.

    Raises:
        ExportError: it is not one, or it or a file of weights cannot be read.
    """
    try:
        return onnx.load_model(path)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path} cannot be read as ONNX: {error}") from error


def typed_tensors(model: onnx.ModelProto, kind: int) -> set[str]:
    """Names of all weights and computed tensors of the ONNX type ``kind``, by strict type inference.

    Raises:
        ExportError: the graph's types or shapes contradict one another.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ExportError(f"the graph's types or shapes contradict one another: {error}") from error
    made = {name for node in model.graph.node for name in node.output}
    names = {
        entry.name
        for entry in (*inferred.graph.value_info, *inferred.graph.output)
        if entry.name in made and entry.type.tensor_type.elem_type == kind
    }
    return names | {tensor.name for tensor in model.graph.initializer if tensor.data_type == kind}


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make ``nodes`` all the nodes of the graph, in place, and drop weights that none of them reads."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    unread = len(model.graph.initializer) - len(weights)
    if unread:
        copies = onnx.GraphProto(initializer=weights)
        model.graph.ClearField("initializer")
        model.graph.initializer.MergeFrom(copies.initializer)


def describe_copies(model: onnx.ModelProto, copies: Mapping[str, str]) -> None:
    """State for each new tensor the type and shape that the graph states for the old one, where it does.

    Runtimes infer what is not stated, but a graph without statements takes ten times as long to open.
    """
    stated = {entry.name: entry for entry in model.graph.value_info}
    for new, old in copies.items():
        if old in stated:
            entry = model.graph.value_info.add()
            entry.CopyFrom(stated[old])
            entry.name = new


def _common(modules: list[str]) -> str:
    if not modules:
        return ""
    parts = [module.split(".") for module in modules]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)
