"""Parity: the judges in closed form, and that a spoiled graph is caught by task."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export.deployment_module import DeploymentGraph
from export.errors import ParityError
from export.onnx.convert import Converted
from export.parity import (
    FP16,
    check_parity,
    evaluate_depth,
    evaluate_labels,
    evaluate_normals,
    evaluate_probability,
)
from export.validation_images import RgbImage
from tests.export.networks import TASKS
from training.tasks import Task


def test_labels_are_judged_by_agreement() -> None:
    expected = np.zeros((1, 100, 100), np.uint8)
    found = expected.copy()
    found[0, 0, :10] = 3
    result = evaluate_labels(found, expected)
    assert result.metrics == pytest.approx(
        {"agreement": 0.999, "mIoU": 0.999, "image_disagreement_p99": 0.001}
    )
    assert result.fault is None
    found[0, 1, 0] = 3
    fault = evaluate_labels(found, expected).fault
    assert fault is not None
    assert "99.8900%" in fault


def test_depth_is_judged_by_relative_error() -> None:
    expected = np.full((1, 10, 10), 4.0, np.float32)
    result = evaluate_depth(expected * np.float32(1.0005), expected)
    assert result.fault is None
    assert result.metrics["relative_error_p99"] == pytest.approx(5e-4, rel=1e-3)
    assert result.metrics["rmse_m"] == pytest.approx(2e-3, rel=1e-3)
    assert result.metrics["error_p99_m"] == pytest.approx(2e-3, rel=1e-3)
    fault = evaluate_depth(expected * np.float32(1.002), expected).fault
    assert fault is not None
    assert "2.00e-03" in fault


def test_limits_are_those_of_the_comparison() -> None:
    expected = np.full((1, 10, 10), 4.0)
    assert evaluate_depth(expected * 1.01, expected, FP16).fault is None
    fault = evaluate_depth(expected * 1.06, expected, FP16).fault
    assert fault is not None
    assert "6.00e-02" in fault
    assert "the limit is 5e-02" in fault


def test_an_image_that_falls_apart_shows_among_many() -> None:
    expected = np.zeros((20, 10, 10), np.uint8)
    found = expected.copy()
    found[7] = 1
    metrics = evaluate_labels(found, expected).metrics
    assert metrics["agreement"] == pytest.approx(0.95)
    assert metrics["image_disagreement_p99"] > 0.8


def test_less_than_a_hundredth_of_the_pixels_may_jump() -> None:
    expected = np.full((1, 100, 100), 4.0)
    found = expected.copy()
    found[0, 0, :90] = 9
    assert evaluate_depth(found, expected).fault is None
    found[0, 1, :20] = 9
    assert evaluate_depth(found, expected).fault is not None


def test_normals_are_judged_by_the_chord() -> None:
    expected = np.zeros((1, 2, 2, 3))
    expected[..., 2] = 1
    found = np.zeros_like(expected)
    found[..., 0] = 1
    result = evaluate_normals(found, expected)
    assert result.metrics["relative_error_max"] == pytest.approx(2**0.5)
    assert result.metrics["mean_degrees"] == pytest.approx(90)
    assert result.metrics["error_p99_degrees"] == pytest.approx(90)
    assert result.fault is not None


def test_small_probabilities_are_judged_at_the_step_of_eight_bits() -> None:
    expected = np.full((1, 2, 2), 1e-6)
    result = evaluate_probability(expected * 2, expected)
    assert result.metrics["relative_error_p99"] == pytest.approx(255e-6)
    assert result.metrics["mae"] == pytest.approx(1e-6)
    assert result.fault is None


def session_of(converted: Converted) -> ort.InferenceSession:
    return ort.InferenceSession(converted.model.SerializeToString())


def test_a_right_graph_passes_at_both_batch_sizes(
    converted: Converted, graph: DeploymentGraph, images: dict[str, RgbImage]
) -> None:
    report = check_parity(session_of(converted), graph, images)
    tasks = report["tasks"]
    assert isinstance(tasks, dict)
    assert list(tasks) == [task.name for task in TASKS]
    assert all(set(metrics) == {"batch_1", "batch_3"} for metrics in tasks.values())
    assert report["images"] == list(images)


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_a_spoiled_head_is_named(
    task: Task, converted: Converted, graph: DeploymentGraph, images: dict[str, RgbImage]
) -> None:
    name = task.name
    for tensor in converted.model.graph.initializer:
        if tensor.name == f"network.heads.{name}.bias":
            spoiled = numpy_helper.to_array(tensor) + np.linspace(0.5, 0.1, tensor.dims[0], dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(spoiled, tensor.name))
    with pytest.raises(ParityError, match=f"task '{name}'") as caught:
        check_parity(session_of(converted), graph, images)
    assert list(caught.value.faults) == [name]
