"""Angles between normals, known by construction."""

import math

import pytest
import torch
from torch import Tensor

from training.metrics.normals import NormalsMetric
from training.tasks import make_task

NORMALS = make_task("normals")


def tilted(*degrees: float) -> Tensor:
    """Unit vectors [n,3] at these angles to the z axis."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()], dim=-1).float()


def figures_of(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    metric = NormalsMetric(NORMALS)
    metric.update(prediction[None, None], truth.T[None, :, None])
    return metric.compute()


def test_mean_median_and_shares() -> None:
    figures = figures_of(tilted(5, 15, 25, 45, 170), tilted(0, 0, 0, 0, 0))
    for protocol in ("mtcp", "invpt"):
        assert figures[f"mErr/{protocol}"] == pytest.approx(52, abs=1e-3)
    assert figures["median"] == pytest.approx(25, abs=0.01)
    assert figures["within_11.25"] == pytest.approx(0.2)
    assert figures["within_22.5"] == pytest.approx(0.4)
    assert figures["within_30"] == pytest.approx(0.6)


def test_labels_need_not_have_unit_length() -> None:
    figures = figures_of(tilted(0, 30), 0.8 * tilted(10, 10))
    assert figures["mErr/mtcp"] == pytest.approx(15, abs=1e-3)
    assert figures["mErr/invpt"] == pytest.approx(15, abs=1e-3)


def test_equal_and_opposite_normals() -> None:
    figures = figures_of(tilted(0, 0), torch.tensor([[0.0, 0, 1], [0, 0, -1]]))
    assert figures["mErr/mtcp"] == pytest.approx(90)
    assert figures["mErr/invpt"] == pytest.approx(90)


def test_invalid_pixels_do_not_count() -> None:
    truth = tilted(10, 10)
    truth[1] = 0
    assert figures_of(tilted(0, math.pi), truth)["mErr/invpt"] == pytest.approx(10, abs=1e-3)
    assert figures_of(tilted(0, 0), torch.zeros(2, 3)) == {}


def test_a_map_that_is_not_finite_is_wrong_there_and_no_crash() -> None:
    prediction = tilted(5, 5, 5)
    prediction[2] = math.nan
    figures = figures_of(prediction, tilted(0, 0, 0))
    assert math.isnan(figures["mErr/mtcp"])
    assert math.isnan(figures["mErr/invpt"])
    assert figures["median"] == pytest.approx(5, abs=0.01)
    assert figures["within_30"] == pytest.approx(2 / 3)
