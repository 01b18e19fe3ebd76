"""The gathers in place of GridSample give what GridSample gives, at borders and outside too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from export.errors import ExportError
from export.onnx.convert import check_operators
from export.onnx.nodes import typed_tensors
from export.trt.deformable import gather_samples

CHANNELS, HEIGHT, WIDTH = 2, 5, 7
Sampler = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


def sampling(**attributes: Any) -> onnx.ModelProto:
    float_info = helper.make_tensor_value_info
    node = helper.make_node("GridSample", ["image", "grid"], ["sampled"], name="sampler", **attributes)
    graph = helper.make_graph(
        [node],
        "sampling",
        [
            float_info("image", TensorProto.FLOAT, ["n", CHANNELS, HEIGHT, WIDTH]),
            float_info("grid", TensorProto.FLOAT, ["n", "h", "w", 2]),
        ],
        [float_info("sampled", TensorProto.FLOAT, ["n", CHANNELS, "h", "w"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def runner(model: onnx.ModelProto) -> Sampler:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda image, grid: session.run(None, {"image": image, "grid": grid})[0]


GRID_SAMPLE = runner(sampling())
GATHERS = runner(gather_samples(sampling()))


def to_grid(columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Pixel coordinates (0 = centre of the first pixel) to a grid [1,1,P,2] in -1..1."""
    pairs = np.stack([(2 * columns + 1) / WIDTH - 1, (2 * rows + 1) / HEIGHT - 1], axis=-1)
    return pairs.astype(np.float32)[None, None]


def image(batch: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(batch, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)


def test_the_rewritten_graph_is_plain_onnx() -> None:
    model = gather_samples(sampling())
    check_operators(model)
    onnx.checker.check_model(model, full_check=True)
    typed_tensors(model, TensorProto.FLOAT)
    assert not model.functions
    assert "GridSample" not in {node.op_type for node in model.graph.node}
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == CHANNELS


def test_pixel_centres_give_the_pixels() -> None:
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    picture = image()
    found = GATHERS(picture, to_grid(columns.ravel(), rows.ravel())).reshape(picture.shape)
    np.testing.assert_allclose(found, picture, atol=1e-5)


def test_half_pixels_give_means_and_borders_fade_to_zero() -> None:
    picture = np.ones((1, CHANNELS, HEIGHT, WIDTH), np.float32)
    columns = np.array([0.5, -0.5, -1.0, -1.5, WIDTH - 0.5, WIDTH, 0.0, -0.5])
    rows = np.array([0.5, 0.0, 0.0, 0.0, 2.0, 2.0, HEIGHT - 0.5, -0.5])
    expected = [1, 0.5, 0, 0, 0.5, 0, 0.5, 0.25]
    found = GATHERS(picture, to_grid(columns, rows))
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-6)


def test_the_whole_border_in_small_steps() -> None:
    steps = np.linspace(-2.5, 8.5, 89)
    columns, rows = np.meshgrid(steps, steps)
    grid = to_grid(columns.ravel(), rows.ravel())
    np.testing.assert_allclose(GATHERS(image(), grid), GRID_SAMPLE(image(), grid), atol=2e-5)


def test_what_lies_far_outside_is_zero() -> None:
    grid = np.array([[[[1e6, 0], [-1e6, 0], [0, 1e20], [3e30, -3e30], [1.5, 1.5]]]], np.float32)
    assert not GATHERS(image(), grid).any()


@settings(max_examples=150)
@given(
    st.integers(1, 3).flatmap(
        lambda batch: st.tuples(
            arrays.arrays(
                np.float32, (batch, CHANNELS, HEIGHT, WIDTH), elements=st.floats(-100, 100, width=32)
            ),
            arrays.arrays(np.float32, (batch, 3, 2, 2), elements=st.floats(-1.75, 1.75, width=32)),
        )
    )
)
def test_any_image_and_grid(case: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
    found, expected = GATHERS(*case), GRID_SAMPLE(*case)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "attributes", [{"mode": "nearest"}, {"padding_mode": "border"}, {"align_corners": 1}], ids=str
)
def test_other_sampling_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="GridSample sampler has"):
        gather_samples(sampling(**attributes))


def test_an_image_of_unknown_size_is_refused() -> None:
    model = sampling()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "width"
    with pytest.raises(ExportError, match="sampler samples an image of unknown size"):
        gather_samples(model)
