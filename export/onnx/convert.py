"""From PyTorch to an ONNX graph that every runtime in use reads correctly."""

from ast import literal_eval
from dataclasses import dataclass

import onnx
import torch
from torch.export import Dim, ExportedProgram

from export.deployment_module import DeploymentGraph
from export.errors import ExportError
from export.onnx.fp16_weights import store_exact_fp16
from export.onnx.gelu import spell_gelu
from export.onnx.layer_norm import spell_layer_norms
from export.onnx.shapes import fold_shapes
from export.onnx.simplify import simplify
from mtcp_serve.bundle.manifest import IMAGE_TENSOR
from training.model.exporting import as_exported

OPSET = 18
"""From opset 20 on GridSample's mode is spelled ``linear``, which TensorRT's parser took for nearest
(NVIDIA/TensorRT issue 4646); that of TensorRT for RTX 1.7, which the tests ask, does not."""
LARGEST = 2**31 - 2**24
"""Bytes of weights; Protobuf ends at 2 GiB, and the nodes need room too."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter's note of the modules around a node, outermost first, and of the operator."""
TRAINING_ONLY = "auxiliary"
"""Part of the names of parameters that must not be deployed."""


@dataclass(frozen=True)
class Converted:
    """An ONNX model and the number of weights behind each of the network's parameters that it uses."""

    model: onnx.ModelProto
    parameters: dict[str, int]


def convert(graph: DeploymentGraph) -> Converted:
    """Convert with a dynamic batch, fixed height and width, and outputs named as those of the graph.

    Raises:
        ExportError: the weights are too large for one file, PyTorch cannot export the network, or
            `check_structure` refuses the result.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    if size > LARGEST:
        raise ExportError(
            f"the weights take {size / 2**30:.1f} GiB; an ONNX file holds 2 GiB, and weights in a file apart "
            "are not written"
        )
    try:
        with as_exported():
            with torch.no_grad():
                graph(graph.example(2))  # its constants of this size are made now, not by nodes of the graph
            program = torch.onnx.export(
                graph,
                (graph.example(2),),  # a batch of 1 would be taken for a constant
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGE_TENSOR],
                output_names=list(graph.outputs),
                dynamic_shapes={IMAGE_TENSOR: {0: Dim("batch")}},
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"PyTorch cannot export this network to ONNX: {error}") from error
    assert isinstance(program, torch.onnx.ONNXProgram)
    assert program.exported_program is not None
    model = program.model_proto
    store_exact_fp16(model)
    converted = Converted(simplify(model), _used_parameters(program.exported_program))
    spell_gelu(converted.model)
    spell_layer_norms(converted.model)
    fold_shapes(converted.model)
    _name_nodes(converted.model)
    _strip_notes(converted.model)
    check_structure(converted)
    return converted


def check_structure(converted: Converted) -> None:
    """Refuse what runtimes read differently and what only training needs.

    Raises:
        ExportError: the model is not valid ONNX, has another opset than `OPSET` or operators from elsewhere,
            GridSample with mode ``linear``, CumSum (miscompiled by TensorRT, issue 4551; position encodings
            should be constants), or parameters of auxiliary heads.
    """
    check_operators(converted.model)
    stray = sorted(name for name in converted.parameters if TRAINING_ONLY in name.split("."))
    if stray:
        raise ExportError(f"the exported graph uses parameters of training only: {', '.join(stray)}")


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse a graph that runtimes read differently, as `check_structure` says.

    Raises:
        ExportError: likewise.
    """
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ExportError(
            f"the exported graph has the operator sets {opsets}, expected is opset {OPSET} alone"
        )
    for node in model.graph.node:
        if node.op_type == "CumSum":
            raise ExportError(f"the exported graph computes CumSum ({node.name}); make it a constant")
        if node.op_type == "GridSample" and any(entry.s == b"linear" for entry in node.attribute):
            raise ExportError(f"the exported graph has GridSample with mode linear ({node.name})")


def _used_parameters(program: ExportedProgram) -> dict[str, int]:
    used = {node.name for node in program.graph.find_nodes(op="placeholder") if node.users}
    return {
        name: program.state_dict[name].numel()
        for node, name in program.graph_signature.inputs_to_parameters.items()
        if node in used
    }


def _name_nodes(model: onnx.ModelProto) -> None:
    """Call each node MODULE/OPERATOR_INDEX: what it is part of, for `export.fp16` and profilers."""
    for index, node in enumerate(model.graph.node):
        notes = {entry.key: entry.value for entry in node.metadata_props}
        module = literal_eval(notes[SCOPES])[-2] if SCOPES in notes else ""
        node.name = f"{module}/{node.op_type}_{index}"


def _strip_notes(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: source paths of the machine, and about a third of a small model's file."""
    graph = model.graph
    for entries in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in entries:
            entry.ClearField("metadata_props")
            entry.ClearField("doc_string")
    for whole in (model, graph):
        whole.ClearField("metadata_props")
        whole.ClearField("doc_string")
