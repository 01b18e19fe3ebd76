"""Arithmetic on weights is done once, and nothing else changes."""

import copy

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser

from export.onnx.convert import Converted
from export.onnx.fold_weights import fold_weights
from export.validation_images import RgbImage

TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
scaled (float[N, 3] x) => (float[N, 2] y, float[3, 2] used)
<float[3, 2] weight, float[2] scale>
{
    used = Mul (weight, scale)
    again = Mul (weight, scale)
    turned = Transpose <perm = [1, 0]> (again)
    back = Transpose <perm = [1, 0]> (turned)
    product = MatMul (x, back)
    size = Shape <start = 0, end = 1> (x)
    y = Add (product, scale)
}
"""


def test_results_stand_under_the_names_they_had() -> None:
    model = parser.parse_model(TEXT)
    weight, scale = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([2, 3], np.float32)
    del model.graph.initializer[:]
    for name, values in {"weight": weight, "scale": scale}.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    fold_weights(model)
    assert [node.op_type for node in model.graph.node] == [
        "Mul",
        "MatMul",
        "Shape",
        "Add",
    ]  # used is an output
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored.keys() == {"scale", "weight", "back"}
    np.testing.assert_array_equal(stored["back"], weight * scale)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString())
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], x @ (weight * scale) + scale)


def test_a_network_gives_the_same_maps(deployed: Converted, images: dict[str, RgbImage]) -> None:
    folded = copy.deepcopy(deployed.model)
    fold_weights(folded)
    weights = {tensor.name for tensor in folded.graph.initializer}
    assert not [node.name for node in folded.graph.node if node.input and weights.issuperset(node.input)]
    assert len(folded.graph.node) < len(deployed.model.graph.node)
    image = {"image": np.stack(list(images.values()))}
    sessions = [ort.InferenceSession(model.SerializeToString()) for model in (deployed.model, folded)]
    expected, found = (session.run(None, image) for session in sessions)
    for ours, theirs in zip(found, expected, strict=True):
        if ours.dtype == np.uint8:
            assert (ours == theirs).mean() > 0.999
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
