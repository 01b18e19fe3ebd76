"""The exported graph: what it must be and what it must not contain."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import nn

from export.deployment_module import DeploymentGraph
from export.errors import ExportError
from export.onnx.convert import Converted, check_structure, convert
from tests.export.networks import HEIGHT, TASKS, WIDTH, Final, TinyNetwork


def test_a_converted_graph_is_sound(converted: Converted) -> None:
    check_structure(converted)
    assert [(entry.domain, entry.version) for entry in converted.model.opset_import] == [("", 18)]
    assert [entry.name for entry in converted.model.graph.output] == [task.name for task in TASKS]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_is_dynamic(converted: Converted, graph: DeploymentGraph, batch: int) -> None:
    session = ort.InferenceSession(converted.model.SerializeToString())
    generator = torch.Generator().manual_seed(batch)
    image = torch.randint(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    found = session.run(None, {"image": image.numpy()})
    with torch.inference_mode():
        maps = graph(image)
    for task, array in zip(TASKS, found, strict=True):
        expected = maps[task.name].numpy()
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        if task.kind == "labels":
            assert (array == expected).mean() > 0.999
        else:
            np.testing.assert_allclose(array, expected, atol=1e-5)


def test_weights_that_no_file_holds_are_refused_before_the_work() -> None:
    network = TinyNetwork()
    network.register_buffer("large", torch.empty(2**29, device="meta"))
    with pytest.raises(ExportError, match=r"the weights take 2\.0 GiB; an ONNX file holds 2 GiB"):
        convert(DeploymentGraph(network, TASKS, HEIGHT, WIDTH))


def test_used_parameters_are_counted(converted: Converted, graph: DeploymentGraph) -> None:
    assert converted.parameters == {name: value.numel() for name, value in graph.named_parameters()}


def test_nodes_are_named_after_their_modules(converted: Converted) -> None:
    names = [node.name for node in converted.model.graph.node]
    assert len(set(names)) == len(names)
    assert any(name.startswith("network.norm/Conv_") for name in names)  # the stem, merged into it
    assert any(name.startswith("network.heads.depth/Conv_") for name in names)


def test_no_path_of_this_machine_is_left(converted: Converted) -> None:
    content = converted.model.SerializeToString()
    assert b".py" not in content
    assert str(Path(sys.prefix)).encode() not in content


def test_another_opset_is_refused(converted: Converted) -> None:
    converted.model.opset_import[0].version = 20
    with pytest.raises(ExportError, match="opset 18 alone"):
        check_structure(converted)


def test_operators_from_elsewhere_are_refused(converted: Converted) -> None:
    converted.model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ExportError, match=r"com\.example"):
        check_structure(converted)


def test_cumsum_is_refused(converted: Converted) -> None:
    graph = converted.model.graph
    axis = onnx.numpy_helper.from_array(np.array(1), "axis")
    graph.initializer.append(axis)
    graph.node.append(helper.make_node("CumSum", ["depth", "axis"], ["sums"], name="positions"))
    with pytest.raises(ExportError, match=r"CumSum \(positions\)"):
        check_structure(converted)


def test_grid_sample_in_the_spelling_of_opset_20_is_refused(converted: Converted) -> None:
    node = helper.make_node("GridSample", ["depth", "depth"], ["sampled"], name="deform", mode="linear")
    converted.model.graph.node.append(node)
    with pytest.raises(ExportError, match=r"mode linear \(deform\)"):
        check_structure(converted)


def test_auxiliary_heads_are_refused(converted: Converted) -> None:
    spoiled = dataclasses.replace(converted, parameters={"network.branches.depth.auxiliary.0.weight": 4})
    with pytest.raises(ExportError, match="auxiliary"):
        check_structure(spoiled)


def test_an_invalid_graph_is_refused(converted: Converted) -> None:
    converted.model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_structure(converted)


class _Branching(nn.Module):
    """Decides in Python on what is in the picture, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyNetwork()

    def forward(self, images: torch.Tensor) -> Final:
        final: Final = self.network(images if images.float().mean() > 1 else 255 - images)
        return final


def test_a_network_that_cannot_be_exported_is_an_export_error() -> None:
    with pytest.raises(ExportError, match="cannot export this network"):
        convert(DeploymentGraph(_Branching(), TASKS, HEIGHT, WIDTH))
