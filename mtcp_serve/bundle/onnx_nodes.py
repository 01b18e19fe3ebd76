"""Opset, nodes and data files of an ONNX file, without the ``onnx`` package, which no server installs.

ONNX files are protocol buffers. The messages below are the part of ONNX's published schema that is needed,
with its field numbers; all other fields, the weights among them, are skipped. The protobuf runtime is there
in any case: onnxruntime needs it.

Why by hand: ``mtcp-serve check`` is part of a server's install and judges files that it does not trust. What
export could record in the manifest would only be what a file claims of itself, and bundles of before lack it.
ONNX Runtime's session tells neither the opset nor attributes; the nodes it names, from 1.24 on, are those
of the graph that it runs, which it may have rewritten. The ``onnx`` package would do, at some 55 MB more on
every server (with ml_dtypes) for these few facts; a test compares this reader with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from mtcp_serve.errors import BundleMismatchError

_Field = descriptor_pb2.FieldDescriptorProto
_SCHEMA: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "Model": (("graph", 7, "Graph"), ("opset_import", 8, "Opset*"), ("functions", 25, "Function*")),
    "Opset": (("domain", 1, "string"), ("version", 2, "int64")),
    "Graph": (
        ("node", 1, "Node*"),
        ("initializer", 5, "Tensor*"),
        ("sparse_initializer", 15, "SparseTensor*"),
    ),
    "Function": (("node", 7, "Node*"), ("attribute_proto", 11, "Attribute*")),
    "Node": (("name", 3, "string"), ("op_type", 4, "string"), ("attribute", 5, "Attribute*")),
    "Attribute": (
        ("name", 1, "string"),
        ("s", 4, "bytes"),
        ("t", 5, "Tensor"),
        ("g", 6, "Graph"),
        ("tensors", 10, "Tensor*"),
        ("graphs", 11, "Graph*"),
        ("sparse_tensor", 22, "SparseTensor"),
        ("sparse_tensors", 23, "SparseTensor*"),
    ),
    "Tensor": (("external_data", 13, "Entry*"), ("data_location", 14, "int64")),
    "SparseTensor": (("values", 1, "Tensor"), ("indices", 2, "Tensor")),
    "Entry": (("key", 1, "string"), ("value", 2, "string")),
}
"""Message -> fields: name, number in ONNX's schema, type (``*`` is repeated)."""
_EXTERNAL = 1
"""Where the data of a tensor are: not in this file."""
_SCALARS = {"string": _Field.TYPE_STRING, "int64": _Field.TYPE_INT64, "bytes": _Field.TYPE_BYTES}


@dataclass(frozen=True)
class Node:
    """A node: its name, operator, and those of its attributes that are strings."""

    name: str
    op_type: str
    strings: Mapping[str, str]


@dataclass(frozen=True)
class OnnxGraph:
    """What is read of a file: the opset of ONNX's own operators, and every node, those of subgraphs too.

    ``data_files`` are the files that hold weights of it, relative to its folder, each once.
    """

    opset: int
    nodes: tuple[Node, ...]
    data_files: tuple[str, ...]


def read_graph(path: Path) -> OnnxGraph:
    """Read the ONNX file at ``path``.

    Raises:
        BundleMismatchError: it cannot be read, or is no ONNX model.
    """
    model: Any = _message("Model")
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise BundleMismatchError(f"{path} cannot be read as ONNX: {error}") from error
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    nodes = tuple(_walk(model.graph.node)) + tuple(
        node for function in model.functions for node in _walk(function.node)
    )
    if not opsets or not nodes:
        raise BundleMismatchError(f"{path} is no ONNX model: it has no opset or no nodes")
    return OnnxGraph(max(opsets), nodes, tuple(dict.fromkeys(_data_files(model))))


def _walk(nodes: Any) -> Iterator[Node]:
    for node in nodes:
        strings = {
            attribute.name: attribute.s.decode("utf-8", "replace")
            for attribute in node.attribute
            if attribute.s
        }
        yield Node(node.name, node.op_type, strings)
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)
            for graph in attribute.graphs:
                yield from _walk(graph.node)


def _data_files(part: Any) -> Iterator[str]:
    """Where the tensors in ``part`` of a model, however deep, have their data if it is not in the model."""
    if part.DESCRIPTOR.name == "Tensor" and part.data_location == _EXTERNAL:
        for entry in part.external_data:
            if entry.key == "location":
                yield str(PurePosixPath(entry.value))
    for field, value in part.ListFields():
        if field.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _data_files(inner)


def _message(name: str) -> Any:
    """An empty message of `_SCHEMA`, in a pool of its own: the ``onnx`` package may be loaded beside it."""
    file = descriptor_pb2.FileDescriptorProto(name="mtcp_onnx.proto", package="mtcp_onnx", syntax="proto2")
    for message, fields in _SCHEMA.items():
        descriptor = file.message_type.add(name=message)
        for field, number, kind in fields:
            scalar = _SCALARS.get(kind)
            descriptor.field.add(
                name=field,
                number=number,
                label=_Field.LABEL_REPEATED if kind.endswith("*") else _Field.LABEL_OPTIONAL,
                type=scalar or _Field.TYPE_MESSAGE,
                type_name=None if scalar else f".mtcp_onnx.{kind.rstrip('*')}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"mtcp_onnx.{name}"))()
