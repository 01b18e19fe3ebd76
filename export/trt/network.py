"""A graph as TensorRT's parser reads it: what can be known of a plan where no GPU is."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from export.errors import PlanError

Layer = dict[str, Any]
"""A layer in the words of TensorRT's engine inspector: ``Name``, ``LayerType``, ``Outputs``."""


class TensorInfo(BaseModel):
    """An input or output of a network; -1 is an axis that may vary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str
    shape: tuple[int, ...]


@cache
def logger(trt: ModuleType) -> Any:
    """The one logger of a TensorRT, which ignores any other than its first; it writes to standard output."""
    return trt.Logger()


def parse(trt: ModuleType, builder: Any, graph: Path) -> Any:
    """The strongly typed ``INetworkDefinition`` of an ONNX file.

    Raises:
        PlanError: TensorRT cannot read it; every node that it refuses is named, with what it said.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger(trt))
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(
            f"{error.node_operator()} ({error.node_name()}): {_said(error)}"
            if error.node_name()
            else _said(error)
            for error in errors
        )
        raise PlanError(f"TensorRT {trt.__version__} cannot read {graph}: {said}")
    return network


def _said(error: Any) -> str:
    """What the parser says, but for its complaints that no GPU is here."""
    lines = [line for line in str(error.desc()).splitlines() if "catchCudaError" not in line]
    return " ".join(lines)


def describe_layers(network: Any) -> list[Layer]:
    """Each layer of a parsed network and the types of what it gives, which a strongly typed build keeps."""
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        outputs = [layer.get_output(slot) for slot in range(layer.num_outputs)]
        layers.append(
            {
                "Name": layer.name,
                "LayerType": layer.type.name,
                "Outputs": [{"Name": output.name, "DataType": output.dtype.name} for output in outputs],
            }
        )
    return layers


def describe_tensors(network: Any) -> tuple[TensorInfo, ...]:
    """The inputs of a parsed network, then its outputs."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    return tuple(
        TensorInfo(name=tensor.name, type=tensor.dtype.name, shape=tuple(tensor.shape)) for tensor in tensors
    )
