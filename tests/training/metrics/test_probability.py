"""F-measures against curves done by hand."""

import pytest
import torch
from torch import Tensor

from training.metrics.probability import (
    INVPT_RELEASED_THRESHOLDS,
    INVPT_THRESHOLDS,
    MTCP_THRESHOLDS,
    ProbabilityMetric,
)
from training.tasks import make_task

SALIENCY = make_task("saliency")


def figures_of(images: list[tuple[list[float], list[float]]]) -> dict[str, float]:
    metric = ProbabilityMetric(SALIENCY)
    probability, truth = (torch.tensor([image[side] for image in images]) for side in (0, 1))
    metric.update(probability[:, None], truth[:, None, None])
    return metric.compute()


def test_thresholds_of_the_protocols() -> None:
    assert MTCP_THRESHOLDS.tolist() == pytest.approx([0.2 + 0.05 * step for step in range(15)])
    assert INVPT_THRESHOLDS.tolist() == pytest.approx([0.05 * step for step in range(1, 20)])


def test_released_thresholds_are_those_of_a_sigmoid_of_a_probability() -> None:
    reached = [round(value, 2) for value in INVPT_RELEASED_THRESHOLDS.tolist() if 0 <= value <= 1]
    assert reached == [0, 0.2, 0.41, 0.62, 0.85]
    values = torch.linspace(0, 1, 1001)
    for described, released in zip(INVPT_THRESHOLDS, INVPT_RELEASED_THRESHOLDS, strict=True):
        assert torch.equal(values.sigmoid() >= described, values >= released)


def test_as_released_the_best_of_few_thresholds_is_worse() -> None:
    """A clean split between .45 and .55 lies between two of the thresholds that are left."""
    figures = figures_of([([0.58, 0.58, 0.43, 0.43], [1, 1, 0, 0])])
    assert figures["maxF/invpt"] == pytest.approx(1)
    assert figures["maxF/invpt_released"] == pytest.approx(f_measure(1 / 2, 1.0, 0.3))


def test_a_perfect_map() -> None:
    figures = figures_of([([0.9, 0.95, 0.1, 0.0], [1, 1, 0, 0])])
    assert figures["maxF/mtcp"] == pytest.approx(1)
    assert figures["maxF/invpt"] == pytest.approx(1)
    assert figures["maxF/averaged"] == pytest.approx(1)
    assert figures["MAE"] == pytest.approx((0.1 + 0.05 + 0.1) / 4)


def f_measure(precision: float, recall: float, beta_squared: float) -> float:
    return (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)


def test_averaged_and_pooled_protocols_differ() -> None:
    figures = figures_of(
        [
            ([0.5, 0.5, 0.5, 0.0], [1, 0, 0, 0]),  # precision 1/3, recall 1 up to threshold .5, then nothing
            ([0.5, 0.0, 0.0, 0.0], [1, 1, 0, 0]),  # precision 1, recall 1/2 up to threshold .5, then nothing
        ]
    )
    assert figures["maxF/mtcp"] == pytest.approx(f_measure(4 / 6, 3 / 4, 1.0))
    assert figures["maxF/invpt"] == pytest.approx(f_measure(2 / 4, 2 / 3, 0.3))
    # the 256 thresholds begin at 0, where everything is foreground: precision (1/4 + 1/2) / 2, recall 1
    assert figures["maxF/averaged"] == pytest.approx(
        max(f_measure(4 / 6, 3 / 4, 0.3), f_measure(3 / 8, 1.0, 0.3))
    )


def test_soft_labels_split_at_one_half_and_ignored_pixels_do_not_count() -> None:
    figures = figures_of([([0.9, 0.9, 0.1, 1.0], [0.51, 1.0, 0.5, -1.0])])
    assert figures["maxF/mtcp"] == pytest.approx(1)
    assert figures["MAE"] == pytest.approx((0.39 + 0.1 + 0.4) / 3)


def test_an_image_without_foreground_counts_as_zero() -> None:
    figures = figures_of([([0.9, 0.1], [1, 0]), ([0.1, 0.1], [0, 0])])
    assert figures["maxF/mtcp"] == pytest.approx(0.5)
    assert figures["maxF/invpt"] == pytest.approx(1)


def test_no_label_gives_no_figure() -> None:
    assert figures_of([([0.5, 0.5], [-1, -1])]) == {}


def test_a_threshold_is_reached_by_its_own_value() -> None:
    metric = ProbabilityMetric(SALIENCY)
    threshold: Tensor = MTCP_THRESHOLDS[-1]
    metric.update(
        torch.stack([threshold, threshold.new_tensor(0)]).view(1, 1, 2), torch.tensor([[[[1.0, 0]]]])
    )
    assert metric.compute()["maxF/mtcp"] == pytest.approx(1)
    assert metric.mtcp[1].tolist() == [1.0] * 15
