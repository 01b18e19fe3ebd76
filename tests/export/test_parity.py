"""Parity: the judges in closed form, and that a spoiled graph is caught by task."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from export.deployment_module import DeploymentGraph
from export.errors import ParityError
from export.onnx.convert import Converted
from export.parity import HALF, check_parity, judge_depth, judge_labels, judge_normals, judge_probability
from export.validation_images import Photo
from tests.export.networks import TASKS
from training.tasks import Task


def test_labels_are_judged_by_agreement() -> None:
    wanted = np.zeros((1, 100, 100), np.uint8)
    found = wanted.copy()
    found[0, 0, :10] = 3
    verdict = judge_labels(found, wanted)
    assert verdict.figures == pytest.approx(
        {"agreement": 0.999, "mIoU": 0.999, "photo_disagreement_p99": 0.001}
    )
    assert verdict.fault is None
    found[0, 1, 0] = 3
    fault = judge_labels(found, wanted).fault
    assert fault is not None
    assert "99.8900%" in fault


def test_depth_is_judged_by_relative_error() -> None:
    wanted = np.full((1, 10, 10), 4.0, np.float32)
    verdict = judge_depth(wanted * np.float32(1.0005), wanted)
    assert verdict.fault is None
    assert verdict.figures["relative_error_p99"] == pytest.approx(5e-4, rel=1e-3)
    assert verdict.figures["rmse_m"] == pytest.approx(2e-3, rel=1e-3)
    assert verdict.figures["error_p99_m"] == pytest.approx(2e-3, rel=1e-3)
    fault = judge_depth(wanted * np.float32(1.002), wanted).fault
    assert fault is not None
    assert "2.00e-03" in fault


def test_limits_are_those_of_the_comparison() -> None:
    wanted = np.full((1, 10, 10), 4.0)
    assert judge_depth(wanted * 1.01, wanted, HALF).fault is None
    fault = judge_depth(wanted * 1.06, wanted, HALF).fault
    assert fault is not None
    assert "6.00e-02" in fault
    assert "the limit is 5e-02" in fault


def test_a_photo_that_falls_apart_shows_among_many() -> None:
    wanted = np.zeros((20, 10, 10), np.uint8)
    found = wanted.copy()
    found[7] = 1
    figures = judge_labels(found, wanted).figures
    assert figures["agreement"] == pytest.approx(0.95)
    assert figures["photo_disagreement_p99"] > 0.8


def test_less_than_a_hundredth_of_the_pixels_may_jump() -> None:
    wanted = np.full((1, 100, 100), 4.0)
    found = wanted.copy()
    found[0, 0, :90] = 9
    assert judge_depth(found, wanted).fault is None
    found[0, 1, :20] = 9
    assert judge_depth(found, wanted).fault is not None


def test_normals_are_judged_by_the_chord() -> None:
    wanted = np.zeros((1, 2, 2, 3))
    wanted[..., 2] = 1
    found = np.zeros_like(wanted)
    found[..., 0] = 1
    verdict = judge_normals(found, wanted)
    assert verdict.figures["relative_error_max"] == pytest.approx(2**0.5)
    assert verdict.figures["mean_degrees"] == pytest.approx(90)
    assert verdict.figures["error_p99_degrees"] == pytest.approx(90)
    assert verdict.fault is not None


def test_small_probabilities_are_judged_at_the_step_of_eight_bits() -> None:
    wanted = np.full((1, 2, 2), 1e-6)
    verdict = judge_probability(wanted * 2, wanted)
    assert verdict.figures["relative_error_p99"] == pytest.approx(255e-6)
    assert verdict.figures["mae"] == pytest.approx(1e-6)
    assert verdict.fault is None


def session_of(converted: Converted) -> ort.InferenceSession:
    return ort.InferenceSession(converted.model.SerializeToString())


def test_a_right_graph_passes_at_both_batch_sizes(
    converted: Converted, graph: DeploymentGraph, photos: dict[str, Photo]
) -> None:
    report = check_parity(session_of(converted), graph, photos)
    tasks = report["tasks"]
    assert isinstance(tasks, dict)
    assert list(tasks) == [task.name for task in TASKS]
    assert all(set(figures) == {"batch_1", "batch_3"} for figures in tasks.values())
    assert report["photos"] == list(photos)


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_a_spoiled_head_is_named(
    task: Task, converted: Converted, graph: DeploymentGraph, photos: dict[str, Photo]
) -> None:
    name = task.name
    for tensor in converted.model.graph.initializer:
        if tensor.name == f"network.heads.{name}.bias":
            spoiled = numpy_helper.to_array(tensor) + np.linspace(0.5, 0.1, tensor.dims[0], dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(spoiled, tensor.name))
    with pytest.raises(ParityError, match=f"task '{name}'") as caught:
        check_parity(session_of(converted), graph, photos)
    assert list(caught.value.faults) == [name]
