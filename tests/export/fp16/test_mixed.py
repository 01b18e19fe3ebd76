"""Mixed precision: types, values, and that float32 islands are left whole."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.fp16.emulate import emulate_half
from export.fp16.islands import HALF_MAX
from export.fp16.mixed import Mixed, to_mixed_precision
from export.fp16.ranges import measure_peaks, open_session
from export.onnx.convert import Converted, check_operators
from export.onnx.half_weights import load_halves, store_exact_halves
from export.onnx.nodes import Nodes, typed_tensors
from export.parity import HALF, judge, run_onnx
from export.validation_images import Photo


def peaks_of(model: onnx.ModelProto, photos: dict[str, Photo]) -> dict[str, float]:
    return measure_peaks(model, typed_tensors(model, TensorProto.FLOAT), photos.values())


@pytest.fixture(scope="module")
def mixed(deployed: Converted, photos: dict[str, Photo]) -> Mixed:
    return to_mixed_precision(deployed.model, peaks_of(deployed.model, photos))


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


def test_runtimes_take_it_with_any_batch(mixed: Mixed, photos: dict[str, Photo]) -> None:
    session = ort.InferenceSession(mixed.model.SerializeToString())
    images = np.stack(list(photos.values()))
    depth = session.run(["depth"], {"image": images})[0]
    assert depth.shape == images.shape[:3]
    assert depth.dtype == np.float32


def test_heavy_arithmetic_is_half_and_islands_are_not(mixed: Mixed) -> None:
    for operator in ("Conv", "Gemm", "MatMul"):
        assert mixed.half[operator] > 0.8 * mixed.total[operator], operator
    for operator in ("Softmax", "LayerNormalization", "InstanceNormalization", "GridSample", "Einsum"):
        assert mixed.total[operator], operator
        assert not mixed.half[operator], operator
    assert 0.5 < mixed.share < 1


def test_weights_of_half_nodes_are_stored_as_halves(mixed: Mixed) -> None:
    stored = dict.fromkeys((TensorProto.FLOAT, TensorProto.FLOAT16), 0)
    for tensor in mixed.model.graph.initializer:
        if tensor.name.startswith("network.") and len(tensor.dims) > 1:
            stored[tensor.data_type] += 1
    assert stored[TensorProto.FLOAT16] > 20 * stored[TensorProto.FLOAT]


def test_it_computes_what_the_float32_graph_computes(
    mixed: Mixed, deployed: Converted, photos: dict[str, Photo]
) -> None:
    images = np.stack(list(photos.values()))
    wanted = run_onnx(open_session(deployed.model), images, 1)
    found = run_onnx(open_session(emulate_half(mixed.model)), images, 1)
    verdicts = judge(found, wanted, {"semseg": "labels", "depth": "depth"}, HALF)
    assert all(verdict.fault is None for verdict in verdicts.values()), verdicts
    assert np.abs(found["depth"] - wanted["depth"]).max() > 1e-5  # it is another graph


def test_no_value_is_rounded_inside_an_island(mixed: Mixed) -> None:
    nodes = Nodes(mixed.model)
    halves = typed_tensors(mixed.model, TensorProto.FLOAT16)
    for index in nodes.of("GridSample"):
        arithmetic = nodes.upstream([nodes.nodes[index].input[1]], contraction=False)
        rounded = [
            nodes.nodes[member].op_type
            for member in arithmetic
            if not halves.isdisjoint(nodes.nodes[member].output)
        ]
        assert not rounded


def test_weights_stored_as_halves_give_the_same_graph(deployed: Converted, photos: dict[str, Photo]) -> None:
    rounded = load_halves(deployed.model)
    for tensor in rounded.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            if np.isfinite(values).all():
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    stored = load_halves(rounded)
    store_exact_halves(stored)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in stored.graph.initializer)
    peaks = peaks_of(rounded, photos)
    one, other = (to_mixed_precision(model, peaks).model for model in (rounded, stored))
    image = {"image": next(iter(photos.values()))[None]}
    for found, wanted in zip(
        open_session(one).run(None, image), open_session(other).run(None, image), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


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
    assert mixed.half == {"Conv": 2, "Mul": 2}
    picture = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = open_session(emulate_half(mixed.model)).run(None, {"image": picture})[0]

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32)

    product = rounded(picture.astype(np.float32) * rounded(scalar(1.7)))
    wanted = rounded(product * rounded(scalar(1 / 1.7)))
    np.testing.assert_array_equal(found, wanted)
    assert (wanted != picture).any()


def test_peaks_are_measured_on_the_photos_and_through_moves() -> None:
    model = pipeline(
        [("Mul", {"a": scalar(500)}), ("Reshape", {"shape": np.array([1, 1, 16, 16])})], [1, 1, 16, 16]
    )
    photos = [np.full((1, 16, 16), value, np.uint8) for value in (3, 200)]
    peaks = peaks_of(model, dict(enumerate(photos)))  # type: ignore[arg-type]
    assert peaks["a"] == 500
    assert (peaks["t0"], peaks["t1"], peaks["t2"]) == (200, 100_000, 100_000)
    assert peaks["t1"] > HALF_MAX
    mixed = to_mixed_precision(model, peaks)
    assert mixed.half == {"Conv": 1}  # the first; what follows sees numbers that a half cannot hold
    found = open_session(emulate_half(mixed.model)).run(None, {"image": photos[1][None]})[0]
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
    assert types["scale.half"] == TensorProto.FLOAT16
    assert mixed.half["Mul"] == 1
