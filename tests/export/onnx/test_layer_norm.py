"""Layer norms in the spelling that is fast, of the same value, and back."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.onnx.layer_norm import restore_layer_norms, spell_layer_norms

CHANNELS = 8
EPSILON = 1e-3


def normed(scale: np.ndarray, shift: np.ndarray | None = None, axis: int = -1) -> onnx.ModelProto:
    """x [batch,3,CHANNELS] -> its layer norm."""
    constants = {"scale": scale} | ({} if shift is None else {"shift": shift})
    shape: list[str | int | None] = ["batch", 3, CHANNELS]
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", *constants], ["y"], axis=axis, epsilon=EPSILON)],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return np.asarray(ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0])


@pytest.mark.parametrize(("scale", "shift"), [(1, None), (1, 1), (2.5, -0.5)])
def test_norms_that_treat_channels_alike_are_respelled_and_restored(
    scale: float, shift: float | None
) -> None:
    ones = np.ones(CHANNELS)
    model = normed(scale * ones, None if shift is None else shift * ones)
    x = np.random.default_rng(0).normal(3, 2, (5, 3, CHANNELS)).astype(np.float32)
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON) * scale
    wanted += shift or 0
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-5)
    spell_layer_norms(model)
    assert operators(model) == ["Reshape", "InstanceNormalization", "Reshape"]
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-5)
    restore_layer_norms(model)
    assert operators(model) == ["Reshape", "LayerNormalization", "Reshape"]
    np.testing.assert_allclose(run(model, x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        normed(np.arange(CHANNELS)),
        normed(np.ones(CHANNELS), np.arange(CHANNELS)),
        normed(np.ones((3, CHANNELS)), axis=1),
    ],
    ids=["scales differ", "shifts differ", "two axes"],
)
def test_other_norms_are_left_alone(model: onnx.ModelProto) -> None:
    spell_layer_norms(model)
    assert operators(model) == ["LayerNormalization"]


def test_group_norms_are_not_taken_for_layer_norms() -> None:
    graph = helper.make_graph(
        [helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"])],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, CHANNELS])],
        [numpy_helper.from_array(np.ones(3, np.float32), name) for name in ("scale", "shift")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    restore_layer_norms(model)
    assert operators(model) == ["InstanceNormalization"]
