"""Figures of a confidence, against forecasters whose every figure is known."""

import pytest
import torch
from torch import Tensor

from training.metrics.confidence import PREFIX, ConfidenceMetric, ReliabilityBin, curve, without_curve


def figures(confidence: Tensor, right: Tensor, known: Tensor | None = None) -> dict[str, float]:
    metric = ConfidenceMetric()
    metric.update(confidence, right, torch.ones_like(right) if known is None else known)
    found = metric.compute()
    assert all(name.startswith(PREFIX) for name in found)
    return {name.removeprefix(PREFIX): value for name, value in found.items()}


def forecast(parts: list[tuple[float, int, int]]) -> tuple[Tensor, Tensor]:
    """Pixels [1, 1, N] of which ``count`` are said to be right with a probability, and ``right`` are."""
    confidence = torch.cat([torch.full((count,), sure) for sure, count, _ in parts])
    right = torch.cat([torch.arange(count) < hits for _, count, hits in parts])
    return confidence[None, None], right[None, None]


def test_a_calibrated_forecaster_has_no_error() -> None:
    found = figures(*forecast([(0.25, 40, 10), (0.75, 40, 30)]))
    assert found["ECE"] == pytest.approx(0, abs=1e-7)
    assert found["accuracy"] == found["mean"] == pytest.approx(0.5)
    # a right pixel beats a wrong one in 30 * 30 of 40 * 40 pairs, is beaten in 10 * 10, and ties in the rest
    assert found["AUROC"] == pytest.approx((900 + 600 / 2) / 1600)
    # the surest 64 of 80: 40 with 10 wrong, and 24 of those of whom three quarters are wrong
    assert found["risk@80%"] == pytest.approx((10 + 18) / 64)
    assert curve({PREFIX + name: value for name, value in found.items()}) == [
        ReliabilityBin(0.25, 0.25, 0.5), ReliabilityBin(0.75, 0.75, 0.5),
    ]  # fmt: skip


def test_overconfidence_is_the_calibration_error() -> None:
    found = figures(*forecast([(0.95, 100, 60), (0.15, 50, 10)]))
    assert found["ECE"] == pytest.approx((100 * 0.35 + 50 * 0.05) / 150)


def test_opposite_errors_in_one_bin_cancel_and_in_two_do_not() -> None:
    assert figures(*forecast([(0.52, 50, 25), (0.58, 50, 30)]))["ECE"] == pytest.approx(0, abs=1e-6)
    assert figures(*forecast([(0.32, 50, 50), (0.68, 50, 0)]))["ECE"] == pytest.approx(0.68)


@pytest.mark.parametrize(("sure", "area"), [((0.9, 0.1), 1.0), ((0.1, 0.9), 0.0), ((0.5, 0.5), 0.5)])
def test_what_tells_right_from_wrong(sure: tuple[float, float], area: float) -> None:
    found = figures(*forecast([(sure[0], 30, 30), (sure[1], 20, 0)]))
    assert found["AUROC"] == pytest.approx(area)


def test_a_random_forecaster_of_known_error_probabilities() -> None:
    """Pixels are right with the probability that is said: within what 200,000 draws allow."""
    draw = torch.Generator().manual_seed(0)
    said = torch.rand(1, 400, 500, generator=draw)
    found = figures(said, torch.rand(1, 400, 500, generator=draw) < said)
    assert found["ECE"] < 0.005
    assert found["AUROC"] == pytest.approx(5 / 6, abs=0.004)  # of uniform probabilities
    assert found["risk@80%"] == pytest.approx(0.4, abs=0.004)  # 1 - the mean of 0.2 to 1
    over = figures(said.sqrt(), torch.rand(1, 400, 500, generator=draw) < said)
    assert over["ECE"] == pytest.approx(2 / 3 - 1 / 2, abs=0.005)


def test_batches_add_up_and_unknown_pixels_do_not_count() -> None:
    draw = torch.Generator().manual_seed(1)
    said, right, known = torch.rand(4, 6, 8, generator=draw), *(torch.rand(2, 4, 6, 8, generator=draw) > 0.4)
    whole = figures(said, right, known)
    metric = ConfidenceMetric()
    for part in (slice(0, 1), slice(1, 4)):
        metric.update(said[part], right[part], known[part])
    assert metric.compute() == {PREFIX + name: pytest.approx(value) for name, value in whole.items()}
    assert figures(said[known][None, None], right[known][None, None]) == pytest.approx(whole)
    assert figures(said, right, torch.zeros_like(known)) == {}


def test_all_right_has_no_area_and_the_ends_have_a_bin() -> None:
    found = figures(*forecast([(0.0, 3, 3), (1.0, 5, 5)]))
    assert "AUROC" not in found
    assert found["ECE"] == pytest.approx(3 / 8)
    assert {name for name in found if name.endswith("/share")} == {"bin0/share", "bin9/share"}
    named = {PREFIX + name: value for name, value in found.items()}
    assert not any("bin" in name for name in without_curve(named))
    assert curve(without_curve(named)) == []
