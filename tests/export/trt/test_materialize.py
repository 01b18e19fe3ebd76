"""Results that TensorRT would compute again and again are stored once."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.deployment_module import DeploymentGraph
from export.fp16.ranges import open_session
from export.onnx.convert import convert
from export.trt.build import Profile, build_plan
from export.trt.graph import for_tensorrt
from export.trt.target import Target
from export.validation_images import RgbImage
from mtcp_serve.bundle.manifest import IMAGE_TENSOR, InputSpec
from tests.export.fake_tensorrt import needs_tensorrt, real_tensorrt
from tests.export.networks import HEIGHT, TASKS, WIDTH, TinyNetwork


@pytest.fixture(scope="module")
def refined() -> onnx.ModelProto:
    """A graph that is little but the filter of `training.guided_filter`."""
    return convert(DeploymentGraph(TinyNetwork(), TASKS, HEIGHT, WIDTH)).model


def run(model: onnx.ModelProto, images: dict[str, RgbImage]) -> list[np.ndarray]:
    return [*open_session(model).run(None, {IMAGE_TENSOR: np.stack([*images.values()])})]


def test_the_solution_of_the_filter_is_stored_and_nothing_changes(
    refined: onnx.ModelProto, images: dict[str, RgbImage]
) -> None:
    prepared = for_tensorrt(refined, "gather")
    stores = [node for node in prepared.graph.node if node.name.endswith(".store")]
    readers = [
        node.op_type for store in stores for node in prepared.graph.node if store.output[0] in node.input
    ]
    refined_tasks = 4  # all but edges and normals
    assert sorted(readers) == ["Gather"] + ["Resize"] * (1 + 3 + refined_tasks)  # offset, slopes, maps
    for found, expected in zip(run(prepared, images), run(refined, images), strict=True):
        np.testing.assert_array_equal(found, expected)


@needs_tensorrt
def test_a_plan_has_no_kernel_that_says_the_filter_for_each_pixel_it_reads(
    refined: onnx.ModelProto, tmp_path: Path
) -> None:
    """It is 4 MB; with nothing stored it was 65 MB, and 139 MB with elements picked by GatherND."""
    path = tmp_path / "model_trt.onnx"
    onnx.save_model(for_tensorrt(refined, "gather"), path)
    built = build_plan(
        real_tensorrt(),
        path,
        InputSpec(height=HEIGHT, width=WIDTH),
        Profile(1, 2, 4),
        workspace_gib=None,
        timing_cache=None,
        target=Target(("SM80",)),
    )
    assert len(built.plan) < 12e6
