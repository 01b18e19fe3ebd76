"""Mixed precision: types, values, and that nodes kept in FP32 are left whole."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.deployment_module import DeploymentGraph
from export.fp16.emulate import emulate_fp16
from export.fp16.fp32_nodes import FP16_MAX
from export.fp16.mixed import Mixed, to_mixed_precision
from export.fp16.ranges import measure_ranges, open_session
from export.onnx.convert import Converted, check_operators
from export.onnx.fp16_weights import load_fp16_weights, store_exact_fp16
from export.onnx.nodes import Nodes, typed_tensors
from export.parity import FP16, evaluate, run_onnx
from export.validation_images import RgbImage


def ranges_of(model: onnx.ModelProto, images: dict[str, RgbImage]) -> dict[str, float]:
    return measure_ranges(model, typed_tensors(model, TensorProto.FLOAT), images.values())


@pytest.fixture(scope="module")
def mixed(deployed: Converted, images: dict[str, RgbImage]) -> Mixed:
    return to_mixed_precision(deployed.model, ranges_of(deployed.model, images))


def test_types_are_right_and_the_ends_are_as_before(mixed: Mixed, deployed: Converted) -> None:
    check_operators(mixed.model)
    onnx.checker.check_model(mixed.model, full_check=True)
    for before, after in (
        (deployed.model.graph.input, mixed.model.graph.input),
        (deployed.model.graph.output, mixed.model.graph.output),
    ):
        assert [entry.SerializeToString() for entry in before] == [
            entry.SerializeToString() for entry in after
        ]


def test_runtimes_take_it_with_any_batch(mixed: Mixed, images: dict[str, RgbImage]) -> None:
    session = ort.InferenceSession(mixed.model.SerializeToString())
    stack = np.stack(list(images.values()))
    depth = session.run(["depth"], {"image": stack})[0]
    assert depth.shape == stack.shape[:3]
    assert depth.dtype == np.float32


def test_heavy_arithmetic_is_fp16_and_what_needs_fp32_is_not(mixed: Mixed) -> None:
    for operator in ("Conv", "MatMul"):
        assert mixed.fp16[operator] > 0.8 * mixed.total[operator], operator
    for operator in ("Softmax", "InstanceNormalization", "GridSample"):  # layer norms are spelled so too
        assert mixed.total[operator], operator
        assert not mixed.fp16[operator], operator
    assert 0.5 < mixed.share < 1


def test_weights_of_fp16_nodes_are_stored_in_fp16(mixed: Mixed) -> None:
    stored = dict.fromkeys((TensorProto.FLOAT, TensorProto.FLOAT16), 0)
    for tensor in mixed.model.graph.initializer:
        if tensor.data_type in stored and len(tensor.dims) > 1:
            stored[tensor.data_type] += math.prod(tensor.dims)
    assert stored[TensorProto.FLOAT16] > 20 * stored[TensorProto.FLOAT]


def test_it_computes_what_the_float32_graph_computes(
    mixed: Mixed, mtcp: DeploymentGraph, deployed: Converted, images: dict[str, RgbImage]
) -> None:
    stack = np.stack(list(images.values()))
    expected = run_onnx(open_session(deployed.model), stack, 1)
    found = run_onnx(open_session(emulate_fp16(mixed.model)), stack, 1)
    results = evaluate(found, expected, mtcp.outputs, FP16)
    assert "semseg_confidence" in results
    assert all(result.fault is None for result in results.values()), results
    assert np.abs(found["depth"] - expected["depth"]).max() > 1e-5  # it is another graph


def test_no_value_is_rounded_inside_what_is_kept_in_fp32(mixed: Mixed) -> None:
    nodes = Nodes(mixed.model)
    fp16 = typed_tensors(mixed.model, TensorProto.FLOAT16)
    for index in nodes.of("GridSample"):
        arithmetic = nodes.upstream([nodes.nodes[index].input[1]], contraction=False)
        rounded = [
            nodes.nodes[member].op_type
            for member in arithmetic
            if not fp16.isdisjoint(nodes.nodes[member].output)
        ]
        assert not rounded


def test_weights_stored_as_fp16_give_the_same_graph(deployed: Converted, images: dict[str, RgbImage]) -> None:
    rounded = load_fp16_weights(deployed.model)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            if np.isfinite(values).all():
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    stored = load_fp16_weights(rounded)
    store_exact_fp16(stored)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in stored.graph.initializer)
    ranges = ranges_of(rounded, images)
    one, other = (to_mixed_precision(model, ranges).model for model in (rounded, stored))
    image = {"image": next(iter(images.values()))[None]}
    for found, expected in zip(
        open_session(one).run(None, image), open_session(other).run(None, image), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def pipeline(operators: list[tuple[str, dict[str, np.ndarray]]], shape: list[int]) -> onnx.ModelProto:
    """image -> Cast -> Conv 1x1 by 1 -> the operators, each with a constant -> Conv -> depth."""
    ones = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "one")
    constants = [ones]
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "one"], ["t0"]),
    ]
    for index, (operator, values) in enumerate(operators):
        for name, value in values.items():
            constants.append(numpy_helper.from_array(value, name))
        nodes.append(helper.make_node(operator, [f"t{index}", *values], [f"t{index + 1}"]))
    nodes.append(helper.make_node("Conv", [f"t{len(operators)}", "one"], ["y"]))
    nodes.append(helper.make_node("Identity", ["y"], ["depth"]))
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def test_emulation_rounds_after_every_node() -> None:
    model = pipeline([("Mul", {"a": scalar(1.7)}), ("Mul", {"b": scalar(1 / 1.7)})], [1, 1, 16, 16])
    mixed = to_mixed_precision(model, {})
    assert mixed.fp16 == {"Conv": 2, "Mul": 2}
    picture = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = open_session(emulate_fp16(mixed.model)).run(None, {"image": picture})[0]

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    product = rounded(picture.astype(np.float32) * rounded(scalar(1.7)))
    expected = rounded(product * rounded(scalar(1 / 1.7)))
    np.testing.assert_array_equal(found, expected)
    assert (expected != picture).any()


def test_ranges_are_measured_on_the_images_and_through_moves() -> None:
    model = pipeline(
        [("Mul", {"a": scalar(500)}), ("Reshape", {"shape": np.array([1, 1, 16, 16])})], [1, 1, 16, 16]
    )
    images = [np.full((1, 16, 16), value, np.uint8) for value in (3, 200)]
    ranges = ranges_of(model, dict(enumerate(images)))  # type: ignore[arg-type]
    assert ranges["a"] == 500
    assert (ranges["t0"], ranges["t1"], ranges["t2"]) == (200, 100_000, 100_000)
    assert ranges["t1"] > FP16_MAX
    mixed = to_mixed_precision(model, ranges)
    assert mixed.fp16 == {"Conv": 1}  # the first; what follows sees numbers that a half cannot hold
    found = open_session(emulate_fp16(mixed.model)).run(None, {"image": images[1][None]})[0]
    np.testing.assert_allclose(found, 100_000)


def test_a_weight_for_both_precisions_is_kept_in_both() -> None:
    model = pipeline([("Softmax", {}), ("Mul", {"a": scalar(0.1)})], [1, 1, 4, 4])
    model.graph.node[2].op_type = "LayerNormalization"
    model.graph.initializer.append(numpy_helper.from_array(np.full(4, 0.1, np.float32), "scale"))
    model.graph.node[2].input.append("scale")
    model.graph.node[3].input[1] = "scale"
    mixed = to_mixed_precision(model, {})
    types = {tensor.name: tensor.data_type for tensor in mixed.model.graph.initializer}
    assert types["scale"] == TensorProto.FLOAT
    assert types["scale.fp16"] == TensorProto.FLOAT16
    assert mixed.fp16["Mul"] == 1
