"""Standard errors of metrics: against closed forms, and images drawn alike for two networks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.metrics.test_evaluation import IMAGES, TASKS, batches, figures, flat
from training.metrics.resampling import ImageByImage, difference, standard_errors
from training.tasks import make_task

DEPTH = [make_task("depth")]


def depths(errors: Tensor) -> ImageByImage:
    """Of images of 8 x 8 pixels that are 3 m away: all pixels of one are off by its error."""
    found = ImageByImage(DEPTH)
    truth = torch.full((len(errors), 1, 8, 8), 3.0)
    for some, labels in zip(torch.split(errors, 7), torch.split(truth, 7), strict=True):
        found.update({"depth": labels[:, 0] + some[:, None, None]}, {"depth": labels})
    return found


def drawn(evaluation: ImageByImage, times: int = 400) -> list[Any]:
    return list(evaluation.resampled(evaluation.draws(times)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_images_once_are_the_split(size: int) -> None:
    evaluation = ImageByImage(TASKS)
    for outputs, labels in batches(size):
        evaluation.update(outputs, labels)
    assert flat(evaluation.compute()) == pytest.approx(figures(IMAGES), rel=1e-9)
    (again,) = evaluation.resampled(torch.ones(1, IMAGES, dtype=torch.float64))
    assert flat(again) == pytest.approx(figures(IMAGES), rel=1e-9)
    assert flat(evaluation.compute()) == pytest.approx(figures(IMAGES), rel=1e-9)  # draws leave it as it is


def test_a_draw_is_the_split_of_its_images() -> None:
    evaluation = ImageByImage(TASKS)
    twice = ImageByImage(TASKS)
    for index, (outputs, labels) in enumerate(batches(1)):
        evaluation.update(outputs, labels)
        for _ in range((0, 3, 1, 0, 2)[index]):
            twice.update(outputs, labels)
    (found,) = evaluation.resampled(torch.tensor([[0.0, 3, 1, 0, 2]], dtype=torch.float64))
    assert flat(found) == pytest.approx(flat(twice.compute()), rel=1e-9)


def test_the_standard_error_of_a_mean_is_its_closed_form() -> None:
    """absrel is the mean over images here, all of which have as many pixels."""
    errors = torch.from_numpy(np.random.default_rng(1).uniform(0, 1, 60)).float()
    found = standard_errors(drawn(depths(errors), 2000))["depth"]["absrel"]
    assert found == pytest.approx((errors / 3).std().item() / np.sqrt(60), rel=0.05)


def test_images_without_a_label_are_drawn_among_themselves() -> None:
    evaluation = depths(torch.ones(10))
    evaluation.update({"depth": torch.ones(30, 8, 8)}, {"depth": torch.zeros(30, 1, 8, 8)})
    draws = evaluation.draws(50)
    assert draws.shape == (50, 40)
    assert (draws[:, :10].sum(1) == 10).all()
    assert (draws[:, 10:].sum(1) == 30).all()
    assert len({tuple(draw.tolist()) for draw in draws}) == 50
    assert torch.equal(draws, evaluation.draws(50))
    assert not torch.equal(draws, evaluation.draws(50, seed=1))
    assert standard_errors(drawn(evaluation))["depth"]["absrel"] == pytest.approx(0, abs=1e-9)


def test_what_two_networks_have_in_common_cancels_out() -> None:
    """Both err more on the same images; one errs a little less on each of them."""
    errors = torch.from_numpy(np.random.default_rng(2).uniform(0, 1, 50)).float()
    better = errors - 0.05
    one, other = depths(errors), depths(better)
    draws = one.draws(300)
    found = [list(each.resampled(draws)) for each in (one, other)]
    apart = [difference(*pair) for pair in zip(*found, strict=True)]
    assert difference(one.compute(), other.compute())["depth"]["absrel"] > 0
    alone, together = standard_errors(found[0]), standard_errors(apart)
    assert together["depth"]["absrel"] < alone["depth"]["absrel"] / 10


def test_without_images_there_is_nothing() -> None:
    assert ImageByImage(TASKS).compute() == {}


def test_differences_are_of_what_both_have() -> None:
    one = {"depth": {"rmse": 1.0, "absrel": 0.5}, "semseg": {"mIoU": 0.4}}
    other = {"depth": {"rmse": 0.75, "delta": 0.1}, "saliency": {"MAE": 0.1}}
    assert difference(one, other) == {"depth": {"rmse": 0.25}}
