"""GELU as runtimes know it: one operator after they have optimised the graph, of the same value."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from export.onnx.gelu import spell_gelu


def exported(half: float = 0.5) -> onnx.ModelProto:
    """x -> GELU in the order of PyTorch's exporter."""
    constants = {"root": np.sqrt(np.float32(2)), "one": np.float32(1), "half": np.float32(half)}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["half", "c"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gelu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 7])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, optimised: Path) -> tuple[np.ndarray, list[str]]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    x = np.linspace(-3, 3, 14, dtype=np.float32).reshape(2, 7)
    return session.run(None, {"x": x})[0], [node.op_type for node in onnx.load(optimised).graph.node]


def test_onnx_runtime_makes_one_operator_of_it(tmp_path: Path) -> None:
    model = exported()
    before, operators = run(model, tmp_path / "before.onnx")
    assert "Erf" in operators
    spell_gelu(model)
    after, operators = run(model, tmp_path / "after.onnx")
    assert operators == ["Gelu"]
    np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


def test_what_is_no_gelu_is_left_alone(tmp_path: Path) -> None:
    model = exported(half=0.25)
    untouched = model.SerializeToString()
    spell_gelu(model)
    assert [list(node.input) for node in model.graph.node] == [
        list(node.input) for node in onnx.ModelProto.FromString(untouched).graph.node
    ]
