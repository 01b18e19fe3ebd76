"""Constant shapes in place of shape arithmetic: the same values, and fewer layers in the real parser."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.fp16.ranges import open_session
from export.onnx.convert import Converted
from export.onnx.shapes import fold_shapes
from export.trt.deformable import gather_samples
from export.trt.network import describe_layers, logger, parse
from export.validation_images import RgbImage
from tests.export.fake_tensorrt import needs_tensorrt, real_tensorrt

SIZE = 9
Bounds = tuple[int, int, int]


def graph(nodes: list[onnx.NodeProto], outputs: list[str], **constants: np.ndarray) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "graph",
        [info("x", TensorProto.FLOAT, ["batch", 2, SIZE])],
        [info(name, TensorProto.FLOAT, ["b", "h", "w"]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def slices(bounds: list[Bounds], axis: int) -> onnx.ModelProto:
    constants = {
        f"{name}{index}": np.array([value])
        for index, (start, stop, step) in enumerate(bounds)
        for name, value in (("start", start), ("stop", stop), ("axis", axis), ("step", step))
    }
    nodes = [
        helper.make_node(
            "Slice", ["x", *(f"{name}{index}" for name in ("start", "stop", "axis", "step"))], [f"y{index}"]
        )
        for index in range(len(bounds))
    ]
    return graph(nodes, [f"y{index}" for index in range(len(bounds))], **constants)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fold_shapes(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_same(model: onnx.ModelProto, batch: int = 3) -> None:
    values = {"x": np.random.default_rng(0).normal(size=(batch, 2, SIZE)).astype(np.float32)}
    before, after = (open_session(each).run(None, values) for each in (model, folded(model)))
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, expected)


bound = st.integers(-SIZE - 2, SIZE + 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(bound, bound, st.sampled_from([1, 1, 2, 3, -1])), min_size=1, max_size=4),
    st.sampled_from([2, -1]),
)
def test_any_slices_give_what_they_gave(bounds: list[Bounds], axis: int) -> None:
    assert_same(slices(bounds, axis))


def test_pieces_that_do_not_overlap_are_one_split() -> None:
    model = slices([(4, SIZE, 1), (0, 4, 1)], 2)  # what a shifted window rolls
    assert operators(folded(model)) == ["Split"]
    assert_same(model)


def test_pieces_that_overlap_and_those_taken_twice() -> None:
    assert operators(folded(slices([(0, 5, 1), (3, 9, 1)], 2))) == ["Split", "Split"]
    assert operators(folded(slices([(0, 5, 1), (0, 5, 1)], 2))) == ["Split", "Identity"]


def test_steps_are_gathers_and_what_varies_stays() -> None:
    assert operators(folded(slices([(0, SIZE, 2)], 2))) == ["Gather"]
    assert operators(folded(slices([(1, SIZE, 1)], 0))) == ["Slice"]  # of the batch
    assert operators(folded(slices([(SIZE, 0, -1)], 2))) == ["Slice"]


def computed(tail: list[int], operator: str, extra: list[str], **attributes: str) -> onnx.ModelProto:
    """``operator`` whose shape is the batch of ``x``, which is computed, before ``tail``."""
    nodes = [
        helper.make_node("Shape", ["x"], ["extent"], start=0, end=1),
        helper.make_node("Concat", ["extent", "tail"], ["shape"], axis=0),
        helper.make_node(operator, ["x", *extra, "shape"], ["y"], name="it", **attributes),
    ]
    return graph(nodes, ["y"], tail=np.array(tail))


def test_a_reshape_of_the_batch_alone_has_a_constant_shape() -> None:
    model = computed([SIZE, 2], "Reshape", [])
    assert operators(folded(model)) == ["Reshape"]
    assert_same(model)


@pytest.mark.parametrize(("width", "nodes"), [(2 * SIZE, 1), (SIZE + 1, 3), (SIZE, 1)])
def test_a_resize_by_whole_factors_has_constant_scales(width: int, nodes: int) -> None:
    model = computed([2, width], "Resize", ["", ""], mode="linear")
    assert len(folded(model).graph.node) == nodes
    assert_same(model)


def test_the_network_gives_the_same_maps(deployed: Converted, images: dict[str, RgbImage]) -> None:
    model = gather_samples(deployed.model)
    feed = {"image": np.stack(list(images.values()))}
    before, after = (open_session(each).run(None, feed) for each in (model, folded(model)))
    assert (before[0] == after[0]).mean() > 0.9999
    np.testing.assert_allclose(after[1], before[1], rtol=1e-5)
    assert "Slice" not in operators(deployed.model)  # export has folded it
    assert operators(folded(model)).count("Shape") < operators(model).count("Shape")


@needs_tensorrt
def test_tensorrt_has_no_layers_for_the_bounds_of_a_slice(tmp_path: Path) -> None:
    trt, model = real_tensorrt(), slices([(4, SIZE, 1), (0, 4, 1)], 2)
    counts = []
    for number, each in enumerate((model, folded(model))):
        path = tmp_path / f"{number}.onnx"
        onnx.save_model(each, path)
        counts.append(len(describe_layers(parse(trt, trt.Builder(logger(trt)), path))))
    assert counts[1] < counts[0] / 2
