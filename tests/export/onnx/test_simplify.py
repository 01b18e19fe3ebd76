"""Fewer nodes, the same values."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser

from export.onnx.simplify import RULES, simplify

WASTEFUL = """
<ir_version: 9, opset_import: ["" : 18]>
wasteful (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y)
<float one, float[3, 2, 3, 3] kernel,
 float[3] bias, float[3] gain, float[3] shift, float[3] mean, float[3] variance>
{
    half = Constant <value_float = 0.5> ()
    two = Add (half, half)
    same = Mul (x, two)
    again = Mul (one, same)
    turned = Transpose <perm = [0, 2, 3, 1]> (again)
    back = Transpose <perm = [0, 3, 1, 2]> (turned)
    features = Conv <pads = [1, 1, 1, 1]> (back, kernel, bias)
    normal = BatchNormalization (features, gain, shift, mean, variance)
    y = Relu (normal)
    nobody = Exp (x)
}
"""


def model() -> onnx.ModelProto:
    graph = parser.parse_model(WASTEFUL)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 2, 3, 3), **dict.fromkeys(("bias", "gain", "shift", "mean", "variance"), (3,))}
    del graph.graph.initializer[:]
    graph.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), "one"))
    for name, shape in shapes.items():
        graph.graph.initializer.append(
            numpy_helper.from_array(rng.uniform(0.5, 1.5, shape).astype(np.float32), name)
        )
    onnx.checker.check_model(graph)
    return graph


def run(graph: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    (y,) = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    return np.asarray(y)


def test_what_computes_nothing_goes_and_the_values_stay() -> None:
    before = model()
    after = simplify(before)
    assert [node.op_type for node in after.graph.node] == ["Conv", "Relu"]
    x = np.random.default_rng(1).normal(size=(2, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5)


def test_no_rule_looks_at_the_whole_graph_for_each_node() -> None:
    """A rule with several outputs does, in onnxscript's matcher: minutes for a network of this project."""
    assert all(rule._target_pattern.has_single_output_node for rule in RULES)


def test_equal_constants_are_stored_once_however_large() -> None:
    table = np.arange(5000, dtype=np.float32)
    graph = parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 18]>
        twice (float[5000] x) => (float[5000] y) { a = Add (x, one)  b = Mul (a, two)  y = Sub (b, other) }
        """
    )
    for name, values in (("one", table), ("two", table), ("other", table + 1)):
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    after = simplify(graph)
    assert len(after.graph.initializer) == 2
    x = np.random.default_rng(1).normal(size=5000).astype(np.float32)
    np.testing.assert_allclose(run(after, x), (x + table) * table - (table + 1), rtol=1e-5)


def test_a_row_that_is_repeated_is_stored_once() -> None:
    graph = parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 18]>
        repeated (float[9, 96, 64] x) => (float[9, 96, 64] y)
        <int64[2] wide = {96, 64}, int64[2] narrow = {3, 64}>
        {
            many = Expand (row, wide)  few = Expand (row, narrow)
            first = ReduceSum <keepdims = 1> (few, axis)
            summed = Add (x, many)  y = Sub (summed, first)
        }
        """
    )
    row = np.arange(64, dtype=np.float32)[None]
    for name, values in (("row", row), ("axis", np.zeros(1, np.int64))):
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    after = simplify(graph)
    assert [node.op_type for node in after.graph.node] == ["Expand", "Add", "Sub"]
    assert max(np.prod(tensor.dims) for tensor in after.graph.initializer) == 64
    x = np.random.default_rng(1).normal(size=(9, 96, 64)).astype(np.float32)
    np.testing.assert_allclose(run(after, x), x + row - 3 * row, rtol=1e-5, atol=1e-5)
