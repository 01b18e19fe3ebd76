"""Weights stored in FP16."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.deployment_module import DeploymentGraph
from export.onnx.convert import Converted, convert
from export.onnx.fp16_weights import load_fp16_weights, round_to_fp16
from export.validation_images import RgbImage
from tests.export.networks import HEIGHT, TASKS, WIDTH, TinyNetwork

STEM = "network.stem.weight"
STEM_WEIGHTS = 64 * 3 * 7 * 7  # the one large tensor


@pytest.fixture(scope="module")
def rounded() -> DeploymentGraph:
    network = TinyNetwork()
    round_to_fp16(network)
    return DeploymentGraph(network, TASKS, HEIGHT, WIDTH, refine=False)


@pytest.fixture(scope="module")
def fp16(rounded: DeploymentGraph) -> Converted:
    return convert(rounded)


def test_only_large_weights_are_rounded(rounded: DeploymentGraph, graph: DeploymentGraph) -> None:
    changed = [
        name
        for name, value in rounded.named_parameters()
        if not torch.equal(value, graph.get_parameter(name))
    ]
    assert changed == [STEM]
    torch.testing.assert_close(rounded.get_parameter(STEM), graph.get_parameter(STEM), rtol=2**-11, atol=1e-7)


def test_values_beyond_fp16_are_not_rounded() -> None:
    network = TinyNetwork()
    with torch.no_grad():
        network.stem.weight[0, 0, 0, 0] = 1e5
    before = network.stem.weight.clone()
    round_to_fp16(network)
    assert torch.equal(network.stem.weight, before)


def test_rounded_weights_take_half_the_space(converted: Converted, fp16: Converted) -> None:
    stored = {tensor.name: tensor.data_type for tensor in fp16.model.graph.initializer}
    assert stored[f"{STEM}.fp16"] == TensorProto.FLOAT16
    assert STEM not in stored
    assert converted.model.ByteSize() - fp16.model.ByteSize() > 0.9 * 2 * STEM_WEIGHTS
    assert fp16.parameters == converted.parameters


def test_weights_that_fp16_cannot_hold_stay_as_they_are(converted: Converted) -> None:
    assert all(tensor.data_type != TensorProto.FLOAT16 for tensor in converted.model.graph.initializer)


def test_storing_fp16_changes_no_value(
    rounded: DeploymentGraph, fp16: Converted, images: dict[str, RgbImage]
) -> None:
    stack = np.stack(list(images.values()))
    session = ort.InferenceSession(fp16.model.SerializeToString())
    depth, saliency = session.run(["depth", "saliency"], {"image": stack})
    with torch.inference_mode():
        expected = rounded(torch.from_numpy(stack))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, expected["depth"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(saliency, expected["saliency"].numpy(), rtol=1e-5)


def test_only_casts_of_stored_weights_are_undone() -> None:
    """Whatever attributes other nodes have, and in whatever order a Cast has its own."""
    cast = helper.make_node("Cast", ["w"], ["back"], to=TensorProto.FLOAT, saturate=1)
    reversed_cast = helper.make_node("Cast", ["w"], ["again"], to=TensorProto.FLOAT, saturate=1)
    reversed_cast.attribute.reverse()
    kept = [
        helper.make_node("MatMul", ["w", "x"], ["product"]),
        helper.make_node("Concat", ["w", "x"], ["joined"], axis=TensorProto.FLOAT),
        helper.make_node("Cast", ["w"], ["double"], to=TensorProto.DOUBLE, saturate=1),
        helper.make_node("Sum", ["back", "again"], ["sum"]),
    ]
    weights = numpy_helper.from_array(np.ones((2, 2), np.float16), "w")
    graph = helper.make_graph([cast, reversed_cast, *kept], "graph", [], [], [weights])
    whole = load_fp16_weights(helper.make_model(graph))
    assert list(whole.graph.node) == kept
    stored = {tensor.name: tensor.data_type for tensor in whole.graph.initializer}
    assert stored == {"w": TensorProto.FLOAT16, "back": TensorProto.FLOAT, "again": TensorProto.FLOAT}
