"""What stays float32, found in the graph of the real network's modules."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from export.errors import ExportError
from export.fp16.fp32_nodes import FP16_MAX, find_fp32_nodes
from export.onnx.convert import Converted
from export.onnx.fp16_weights import load_fp16_weights
from export.onnx.nodes import Nodes


@pytest.fixture(scope="module")
def nodes(deployed: Converted) -> Nodes:
    return Nodes(deployed.model)


@pytest.fixture(scope="module")
def kept(nodes: Nodes) -> dict[str, set[int]]:
    return find_fp32_nodes(nodes, {})


def operators(nodes: Nodes, members: set[int]) -> set[str]:
    return {nodes.nodes[index].op_type for index in members}


def test_everything_kept_in_fp32_is_found_and_without_images_nothing_is_out_of_range(
    kept: dict[str, set[int]],
) -> None:
    assert all(members for name, members in kept.items() if name != "range")
    assert not kept["range"]


def test_nodes_say_their_modules(nodes: Nodes) -> None:
    assert {"network.branches.cfm", "network.backbone"} <= set(nodes.modules)
    for node, module in zip(nodes.nodes, nodes.modules, strict=True):
        if node.op_type == "Gemm":
            assert node.input[1].startswith(f"{module}.")


def test_without_names_modules_follow_from_parameters() -> None:
    """Three convolutions: one made of the other two's outputs, and a sum of those."""
    constants = [
        numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), f"net.{name}.weight")
        for name in ("cfm.query", "cfm.key")
    ]
    made = [
        helper.make_node("Conv", ["x", "net.cfm.query.weight"], ["q"]),
        helper.make_node("Relu", ["q"], ["a"]),
        helper.make_node("Conv", ["x", "net.cfm.key.weight"], ["k"]),
        helper.make_node("MatMul", ["a", "k"], ["scores"]),
        helper.make_node("Shape", ["x"], ["shape"]),
    ]
    graph = helper.make_graph(made, "graph", [], [], constants)
    nodes = Nodes(helper.make_model(graph))
    assert nodes.modules == ["net.cfm.query", "net.cfm.query", "net.cfm.key", "net.cfm", ""]


def test_sampling_locations_reach_back_to_the_offsets_but_not_into_them(
    nodes: Nodes, kept: dict[str, set[int]]
) -> None:
    members = kept["sampling locations and GridSample"]
    assert operators(nodes, members) >= {"GridSample", "Add", "Mul"}
    assert operators(nodes, members).isdisjoint({"MatMul", "Gemm", "Conv"})


def test_the_affinity_is_the_product_before_the_softmax_not_the_one_after(
    nodes: Nodes, kept: dict[str, set[int]]
) -> None:
    products = [
        nodes.nodes[index] for index in kept["CFM affinity"] if nodes.nodes[index].op_type == "MatMul"
    ]
    assert len(products) == 1  # of all tasks
    following = {
        nodes.nodes[index].op_type for product in products for index in nodes.consumers[product.output[0]]
    }
    assert following <= {"Softmax", "Mul", "Div"}


def test_the_gate_of_the_pixel_embeddings(nodes: Nodes, kept: dict[str, set[int]]) -> None:
    members = kept["R = P * sum M"]
    assert operators(nodes, members) >= {"GreaterOrEqual", "ReduceSum", "Mul"}
    assert "Conv" not in operators(nodes, members)
    products = {index for index in members if nodes.nodes[index].op_type == "MatMul"}
    assert len(products) == 2, "the masks that gate P, and those that bound the attention of the one layer"


def test_the_heads_of_all_tasks(nodes: Nodes, kept: dict[str, set[int]]) -> None:
    convolutions = {
        index
        for index, node in enumerate(nodes.nodes)
        if node.op_type == "Conv" and ".head." in f"{nodes.modules[index]}."
    }
    assert len(convolutions) == 2
    assert convolutions <= kept["heads"]


def test_position_encodings_do_not_depend_on_the_image(nodes: Nodes, kept: dict[str, set[int]]) -> None:
    members = kept["position encodings"]
    assert "Add" in operators(nodes, members)
    assert not nodes.of("Sin", "Cos"), "they are constants"
    assert operators(nodes, members).isdisjoint({"Conv", "GridSample"})


def test_values_near_the_limit_keep_who_makes_and_who_reads_them(nodes: Nodes) -> None:
    index = min(nodes.of("Relu"))
    name = nodes.nodes[index].output[0]
    unfit = find_fp32_nodes(nodes, {name: FP16_MAX / 4})["range"]
    assert unfit == {index, *nodes.consumers[name]}
    assert not find_fp32_nodes(nodes, {name: FP16_MAX / 16})["range"]


def test_constants_that_fp16_would_flush_keep_their_readers(nodes: Nodes) -> None:
    name, readers = next((name, nodes.consumers[name]) for name in nodes.constants if nodes.consumers[name])
    assert find_fp32_nodes(nodes, {name: 1e-6})["range"] == set(readers)
    assert not find_fp32_nodes(nodes, {name: 0.0})["range"]


def test_control_flow_is_refused(deployed: Converted) -> None:
    model = load_fp16_weights(deployed.model)
    attribute = model.graph.node[0].attribute.add()
    attribute.name, attribute.type = "body", attribute.GRAPH
    with pytest.raises(ExportError, match="control flow"):
        Nodes(model)
