"""Mean intersection over union against counts done by hand."""

import pytest
import torch

from training.metrics.labels import LabelMetric
from training.tasks import make_task

SEMSEG, PARSING = make_task("semseg", "voc"), make_task("parsing", "fashion")


def row(*values: int) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1)


def test_counts_are_pooled_and_empty_classes_left_out() -> None:
    metric = LabelMetric(SEMSEG)
    metric.update(row(0, 0, 1, 1).byte(), row(0, 1, 1, 255))
    metric.update(row(2, 0, 0, 0).byte(), row(0, 0, 0, 0))
    # class 0: 4 / (4 + 1 + 1); class 1: 1 / (1 + 0 + 1); class 2 was predicted once and never right
    figures = metric.compute()
    assert figures["mIoU"] == pytest.approx((4 / 6 + 1 / 2 + 0) / 3)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 7)


def test_parsing_skips_images_without_people() -> None:
    metric = LabelMetric(PARSING)
    metric.update(
        torch.cat([row(2, 2, 2), row(0, 2, 2)]).byte(),
        torch.cat([row(0, 0, 255), row(0, 2, 2)]),
    )
    assert metric.compute() == {"mIoU": 1.0, "pixel_accuracy": 1.0}


def test_semseg_keeps_images_of_background() -> None:
    metric = LabelMetric(SEMSEG)
    metric.update(row(2, 2, 2).byte(), row(0, 0, 255))
    assert metric.compute() == {"mIoU": 0.0, "pixel_accuracy": 0.0}


def test_no_label_gives_no_figure() -> None:
    metric = LabelMetric(PARSING)
    metric.update(row(2, 2).byte(), row(0, 255))
    assert metric.compute() == {}


def test_parts_of_vehicles_count_where_nobody_is() -> None:
    metric = LabelMetric(make_task("parsing", "cityscapes_parts"))
    metric.update(row(0, 5, 0).byte(), row(0, 0, 255))
    assert metric.compute()["pixel_accuracy"] == 0.5
