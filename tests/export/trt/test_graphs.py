"""Every graph of the project is read by TensorRT's own parser, in every form that is made of it."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import SwinConfig

from export.deployment_module import DeploymentGraph
from export.fp16.mixed import to_mixed_precision
from export.onnx.convert import Converted, convert
from export.onnx.fp16_weights import load_fp16_weights
from export.trt.engine import fp16_share, precision_histogram
from export.trt.graph import Deformable, for_tensorrt
from export.trt.network import TensorInfo, describe_layers, describe_tensors, logger, parse
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.bundle import Bundle
from tests.export.fake_tensorrt import needs_tensorrt, real_tensorrt
from tests.export.networks import TASKS
from training.config import load_config
from training.model import build_network

pytestmark = needs_tensorrt
Network = tuple[list[dict[str, object]], tuple[TensorInfo, ...]]
DEFORMABLE: tuple[Deformable, ...] = ("gather", "gridsample")


def read(model: onnx.ModelProto, folder: Path) -> Network:
    """The layers and tensors that the parser makes of a graph."""
    path, trt = folder / "model.onnx", real_tensorrt()
    onnx.save_model(model, path)
    network = parse(trt, trt.Builder(logger(trt)), path)
    return describe_layers(network), describe_tensors(network)


@cache
def shipped() -> onnx.ModelProto:
    """The graph of the bundle that comes with the package."""
    return load_fp16_weights(onnx.load_model(Bundle.open(DEFAULT_BUNDLE).graph()))


@pytest.mark.parametrize("deformable", DEFORMABLE)
@pytest.mark.parametrize("fp16", [True, False], ids=["fp16", "float32"])
def test_the_shipped_bundle(fp16: bool, deformable: Deformable, tmp_path: Path) -> None:
    model = to_mixed_precision(shipped(), {}).model if fp16 else shipped()
    layers, tensors = read(for_tensorrt(model, deformable), tmp_path)
    manifest = Bundle.open(DEFAULT_BUNDLE).manifest
    found = {tensor.name: (tensor.type, tensor.shape) for tensor in tensors}
    size = (-1, manifest.input.height, manifest.input.width)
    types = {"uint8": "UINT8", "float32": "FLOAT", "float16": "HALF"}
    assert found.pop("image") == ("UINT8", (*size, 3))
    assert found == {
        task.output: (types[task.dtype], (-1, *task.output_shape(*size[1:]))) for task in manifest.outputs
    }
    share = fp16_share(precision_histogram(layers))
    assert share > 0.6 if fp16 else share == 0
    kinds = {layer["LayerType"] for layer in layers}
    assert ("GRID_SAMPLE" in kinds) == (deformable == "gridsample")
    counted = [output for layer in layers for output in layer["Outputs"]]  # type: ignore[attr-defined]
    arithmetic = sum(output["DataType"] == "INT64" for output in counted)
    assert arithmetic < 0.2 * len(layers)


@pytest.mark.parametrize("deformable", DEFORMABLE)
def test_mtcp(deformable: Deformable, deployed: Converted, tmp_path: Path) -> None:
    mixed = to_mixed_precision(deployed.model, {}).model
    layers, tensors = read(for_tensorrt(mixed, deformable), tmp_path)
    names = ["image", "semseg", "depth", "semseg_confidence", "depth_confidence"]
    assert [tensor.name for tensor in tensors] == names
    assert 0.5 < fp16_share(precision_histogram(layers)) < 1
    norms = [node for node in for_tensorrt(mixed, deformable).graph.node if "Normalization" in node.op_type]
    rows = {node.name for node in deployed.model.graph.node if node.op_type == "InstanceNormalization"}
    restored = [node for node in norms if node.op_type == "LayerNormalization" and node.name in rows]
    assert len(restored) > 10  # as the network has them, in one layer each


def _narrow(**settings: object) -> SwinConfig:
    """Windows, shifts and merges as in Swin-S: two blocks a stage, a quarter of the width."""
    return SwinConfig(**settings | {"embed_dim": 24, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8]})


SHORT = ["model.backbone.encoder_layers=1", "model.backbone.decoder_layers=1", "model.decoder.depths=[1,2,1]"]
NARROW = ["model.backbone.channels=64", "model.backbone.queries=10", "model.decoder.channels=32"]
RECIPES = {
    "scenes": [],
    "nyud_swin_small": [*SHORT, *NARROW, "data.height=96", "data.width=128"],
    "ial_nyuv2": ["data.height=64", "data.width=96"],
}
"""Configs and what makes them small enough for a test."""


@pytest.mark.parametrize("name", RECIPES)
def test_the_network_of_a_recipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network of a config, at a size at which every shift of a window and every fusion is there."""
    monkeypatch.setattr("training.model.encoders.SwinConfig", _narrow)
    config = load_config(name, ["root=data", *RECIPES[name]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config.model)
    size = (config.data.height, config.data.width)
    model = convert(DeploymentGraph(network, network.tasks, *size)).model
    for graph, fp16 in ((model, False), (to_mixed_precision(model, {}).model, True)):
        layers, tensors = read(for_tensorrt(graph, "gather"), tmp_path)
        assert tensors[0] == TensorInfo(name="image", type="UINT8", shape=(-1, *size, 3))
        assert [tensor.name for tensor in tensors[1:]] == [task.name for task in network.tasks]
        share = fp16_share(precision_histogram(layers))
        assert share > 0.5 if fp16 else share == 0


def test_every_task(converted: Converted, tmp_path: Path) -> None:
    _, tensors = read(for_tensorrt(converted.model, "gather"), tmp_path)
    assert [tensor.name for tensor in tensors[1:]] == [task.name for task in TASKS]


def one(node: onnx.NodeProto, opset: int, constants: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [
            info(name, TensorProto.FLOAT, ["n", *sizes])
            for name, sizes in (("image", (3, 8, 8)), ("grid", (8, 8, 2)))
            if name in node.input
        ],
        [info("out", TensorProto.FLOAT, ["n", 3, 8, 8])],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def sample_mode(mode: str, opset: int, folder: Path) -> str:
    """The interpolation that the parser has understood."""
    node = helper.make_node("GridSample", ["image", "grid"], ["out"], name="sampler", mode=mode)
    path, trt = folder / "model.onnx", real_tensorrt()
    onnx.save_model(one(node, opset), path)
    network = parse(trt, trt.Builder(logger(trt)), path)
    (layer,) = (
        network.get_layer(index)
        for index in range(network.num_layers)
        if network.get_layer(index).type == trt.LayerType.GRID_SAMPLE
    )
    layer.__class__ = trt.IGridSampleLayer
    return str(layer.interpolation_mode.name)


def test_the_mode_of_grid_sample_is_understood_as_opset_18_spells_it(tmp_path: Path) -> None:
    assert sample_mode("bilinear", 18, tmp_path) == "LINEAR"
    assert sample_mode("nearest", 18, tmp_path) == "NEAREST"


def test_it_understands_the_spelling_of_opset_20_too(tmp_path: Path) -> None:
    """``linear`` is sampled linearly by this parser; older ones took it for nearest (TensorRT#4646)."""
    assert sample_mode("linear", 20, tmp_path) == "LINEAR"


def test_cumulative_sums_are_read(tmp_path: Path) -> None:
    """Whether they are then compiled rightly (NVIDIA/TensorRT#4551) no parser says."""
    axis = numpy_helper.from_array(np.array(2), "axis")
    node = helper.make_node("CumSum", ["image", "axis"], ["out"], name="positions")
    layers, _ = read(one(node, 18, (axis,)), tmp_path)
    assert "CUMULATIVE" in {layer["LayerType"] for layer in layers}
