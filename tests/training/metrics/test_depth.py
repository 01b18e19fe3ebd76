"""Depth errors in closed form."""

import math

import pytest
import torch

from training.metrics.depth import DepthMetric, DisparityMetric
from training.tasks import make_task

DEPTH = make_task("depth")


def metric_of(depth: list[float], truth: list[float]) -> dict[str, float]:
    metric = DepthMetric(DEPTH)
    metric.update(torch.tensor(depth).view(1, 1, -1), torch.tensor(truth).view(1, 1, 1, -1))
    return metric.compute()


def test_both_protocols_and_relative_errors() -> None:
    figures = metric_of([1.0, 2.0, 5.0, 9.0], [2.0, 2.0, 8.0, 0.0])
    assert figures["rmse/mtcp"] == pytest.approx(math.sqrt(1 / 2))  # 8 m is left out
    assert figures["rmse/invpt"] == pytest.approx(math.sqrt((1 + 0 + 9) / 3))
    assert figures["absrel"] == pytest.approx((1 / 2 + 0 + 3 / 8) / 3)
    assert figures["delta<1.25"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("truth", "kept"), [(6.5534, True), (6.5535, False), (6.5536, False)])
def test_the_papers_code_drops_far_truth(truth: float, kept: bool) -> None:
    assert ("rmse/mtcp" in metric_of([1.0], [truth])) == kept
    assert "rmse/invpt" in metric_of([1.0], [truth])


def test_alignment_removes_a_scale_and_a_shift_per_image() -> None:
    truth = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0)) + 1
    truth[0, 0, 0, 0] = 0
    depth = torch.stack([3 * truth[0, 0] + 1, 0.5 * truth[1, 0] - 0.2])
    depth[0, 0, 0] = 9  # invalid in the truth, must not pull on the fit
    metric = DepthMetric(DEPTH)
    metric.update(depth, truth)
    figures = metric.compute()
    assert figures["rmse/aligned"] < 1e-6
    assert figures["absrel/aligned"] < 1e-6
    assert figures["delta<1.25/aligned"] == 1
    assert figures["delta<1.25"] < 0.5


def test_alignment_is_least_squares() -> None:
    figures = metric_of([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    # slope 1/2 through the means (2, 2): residuals -.5, 1, -.5
    assert figures["rmse/aligned"] == pytest.approx(math.sqrt(1.5 / 3))
    assert figures["absrel/aligned"] == pytest.approx((0.5 / 1 + 1 / 3 + 0.5 / 2) / 3)
    assert figures["delta<1.25/aligned"] == pytest.approx(0)


def test_a_constant_prediction_becomes_the_mean_of_the_truth() -> None:
    figures = metric_of([5.0, 5.0], [1.0, 3.0])
    assert figures["rmse/aligned"] == pytest.approx(1)


def test_no_label_gives_no_figure() -> None:
    assert metric_of([1.0, 2.0], [0.0, 0.0]) == {}


def disparity_of(depth: list[list[float]], truth: list[list[float]]) -> dict[str, float]:
    metric = DisparityMetric(DEPTH)
    metric.update(torch.tensor(depth)[:, None], torch.tensor(truth)[:, None, None])
    return metric.compute()


def test_disparity_is_scored_after_scale_and_shift_of_each_image() -> None:
    depth = [[1.0, 2.0, 4.0, 5.0], [1.0, 2.0, 4.0, 5.0]]
    inverse = torch.tensor(depth[0]).reciprocal()
    truth = [(3 * inverse + 0.5).tolist(), (0.1 * inverse + 2).tolist()]
    truth[0][3] = 0.0
    figures = disparity_of(depth, truth)
    assert figures["abs/aligned"] < 1e-6
    assert figures["delta<1.25/aligned"] == 1


def test_disparity_errors_are_pooled() -> None:
    # inverse depths 1, 2, 3 against 1, 3, 2: slope 1/2 through the means, residuals .5, 1, .5
    figures = disparity_of([[1.0, 0.5, 1 / 3]], [[1.0, 3.0, 2.0]])
    assert figures["abs/aligned"] == pytest.approx(2 / 3, rel=1e-5)
    assert figures["absrel/aligned"] == pytest.approx((0.5 / 1 + 1 / 3 + 0.5 / 2) / 3, rel=1e-5)
    assert disparity_of([[1.0, 2.0]], [[0.0, 0.0]]) == {}
