"""Weights stored in half precision."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

from export.convert import Converted
from export.half import store_weights_as_half
from export.photos import Photo


def test_large_weights_are_rounded_and_everything_still_runs_in_float32(
    converted: Converted, photos: dict[str, Photo]
) -> None:
    model = converted.model
    image = {"image": np.stack(list(photos.values()))}
    before = ort.InferenceSession(model.SerializeToString()).run(["depth", "saliency"], image)
    size = model.ByteSize()
    store_weights_as_half(model)
    onnx.checker.check_model(model, full_check=True)
    assert size - model.ByteSize() > 0.9 * 2 * (32 * 3 * 7 * 7)  # the stem is the one large tensor
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored["network.stem.weight.half"] == TensorProto.FLOAT16
    assert stored["network.heads.depth.bias"] == TensorProto.FLOAT
    after = ort.InferenceSession(model.SerializeToString()).run(["depth", "saliency"], image)
    for found, wanted in zip(after, before, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=5e-3)
    assert not np.array_equal(after[0], before[0])


def test_values_beyond_half_precision_stay_as_they_are(converted: Converted) -> None:
    weights = next(t for t in converted.model.graph.initializer if t.name == "network.stem.weight")
    values = numpy_helper.to_array(weights).copy()
    values[0, 0, 0, 0] = 1e5
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    expected = converted.model.SerializeToString(deterministic=True)
    store_weights_as_half(converted.model)
    assert converted.model.SerializeToString(deterministic=True) == expected
