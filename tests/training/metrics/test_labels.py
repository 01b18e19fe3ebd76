"""Mean intersection over union against counts done by hand."""

import pytest
import torch

from training.metrics import Evaluation, maps_in_other_spaces
from training.metrics.labels import LabelMetric, merged
from training.tasks import make_task

SEMSEG, PARSING = make_task("semseg", "voc"), make_task("parsing", "fashion")


def row(*values: int) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1)


def test_counts_are_pooled_and_unlabelled_classes_left_out() -> None:
    metric = LabelMetric(SEMSEG)
    metric.update(row(0, 0, 1, 1).byte(), row(0, 1, 1, 255))
    metric.update(row(2, 0, 0, 0).byte(), row(0, 0, 0, 0))
    # class 0: 4 / (4 + 1 + 1); class 1: 1 / (1 + 0 + 1); class 2 was predicted once and has no label
    figures = metric.compute()
    assert figures["mIoU"] == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert figures["mIoU/all"] == pytest.approx((4 / 6 + 1 / 2) / 21)
    assert figures["pixel_accuracy"] == pytest.approx(5 / 7)


def test_parsing_skips_images_without_people() -> None:
    metric = LabelMetric(PARSING)
    metric.update(
        torch.cat([row(2, 2, 2), row(0, 2, 2)]).byte(),
        torch.cat([row(0, 0, 255), row(0, 2, 2)]),
    )
    assert metric.compute() == {"mIoU": 1.0, "mIoU/all": 2 / 8, "pixel_accuracy": 1.0, "edgeF": 1.0}


def test_semseg_keeps_images_of_background() -> None:
    metric = LabelMetric(SEMSEG)
    metric.update(row(2, 2, 2).byte(), row(0, 0, 255))
    assert metric.compute() == {"mIoU": 0.0, "mIoU/all": 0.0, "pixel_accuracy": 0.0}


def test_no_label_gives_no_figure() -> None:
    metric = LabelMetric(PARSING)
    metric.update(row(2, 2).byte(), row(0, 255))
    assert metric.compute() == {}


def test_parts_of_vehicles_count_where_nobody_is() -> None:
    metric = LabelMetric(make_task("parsing", "cityscapes_parts"))
    metric.update(row(0, 5, 0).byte(), row(0, 0, 255))
    assert metric.compute()["pixel_accuracy"] == 0.5


def test_one_head_is_scored_in_both_vocabularies_by_sums() -> None:
    task = make_task("semseg", "objects_rooms")
    assert task.space is not None
    labels, parts = task.space.labels, task.space.targets.parts
    probability = torch.full((1, 55, 1, 3), 1e-9)
    probability[0, labels.index("chair"), 0, :] = 0.4  # the likeliest single class of every pixel
    for name in ("wall", "floor", "lamp"):  # 0.6 in all: background in VOC, three classes in NYU-40
        probability[0, labels.index(name), 0, 0] = 0.2
    probability[0, labels.index("dog"), 0, 1], probability[0, labels.index("car"), 0, 1] = 0.3, 0.3
    probability[0, labels.index("wall"), 0, 2] = 0.6
    final = {"semseg": probability.log()}
    maps = maps_in_other_spaces(final, [task], (1, 3))
    assert maps["semseg/voc"].flatten().tolist() == [0, 9, 0]  # chair beats dog and car, but not background
    assert maps["semseg/nyu40"].flatten().tolist() == [4, 39, 0]  # dog and car are both otherprop
    assert maps["semseg/voc"].dtype == torch.uint8

    outputs = {"semseg": final["semseg"].argmax(1).byte(), **maps}
    voc, nyu = torch.from_numpy(parts["voc"].table), torch.from_numpy(parts["nyu40"].table)
    evaluation = Evaluation([task])
    evaluation.update(outputs, {"semseg": voc[torch.tensor([[[0, 12, 0]]])]})
    evaluation.update(outputs, {"semseg": nyu[torch.tensor([[[4, 39, 1]]])]})
    figures = evaluation.compute()["semseg"]
    assert figures["mIoU/voc"] == pytest.approx((1 + 0) / 2)  # background; dog was taken for a chair
    assert figures["mIoU/all/voc"] == pytest.approx(1 / 21)
    assert figures["mIoU/nyu40"] == pytest.approx((1 + 1 + 0) / 3)  # chair, otherprop; floor taken for wall
    assert figures["pixel_accuracy/nyu40"] == pytest.approx(2 / 3)
    assert figures["mIoU"] == pytest.approx((figures["mIoU/voc"] + figures["mIoU/nyu40"]) / 2)


def test_a_space_that_no_label_of_the_batch_is_in_costs_nothing_and_changes_nothing() -> None:
    task = make_task("semseg", "objects_rooms")
    assert task.space is not None
    final = {"semseg": torch.randn(1, 55, 2, 3, generator=torch.Generator().manual_seed(0))}
    labels = {
        "semseg": torch.from_numpy(task.space.targets.parts["nyu40"].table)[
            row(0, 1, 2, 3, 4, 255).view(1, 2, 3)
        ]
    }
    every = maps_in_other_spaces(final, [task], (2, 3))
    needed = maps_in_other_spaces(final, [task], (2, 3), labels=labels)
    assert list(needed) == ["semseg/nyu40"]
    assert maps_in_other_spaces(final, [task], (2, 3), labels={}) == {}
    own = {"semseg": final["semseg"].argmax(1).byte()}
    figures = []
    for maps in (every, needed):
        evaluation = Evaluation([task])
        evaluation.update({**own, **maps}, labels)
        figures.append(evaluation.compute())
    assert figures[0] == figures[1]
    assert "mIoU/nyu40" in figures[0]["semseg"]


def test_labels_narrowed_by_what_the_image_shows_count_as_their_class() -> None:
    task = make_task("semseg", "objects_rooms")
    assert task.space is not None
    voc = task.space.targets.parts["voc"]
    narrowed = voc.contexts[0].table[[0, 7]]
    metric = LabelMetric(task, "voc")
    metric.update(row(0, 7).byte(), torch.from_numpy(narrowed).view(1, 1, -1))
    assert metric.compute()["mIoU"] == 1


def test_labels_of_the_own_space_are_not_mixed_with_others() -> None:
    figures = merged(
        {"semseg": {"mIoU": 0.1}, "semseg/voc": {"mIoU": 0.5}, "semseg/nyu40": {}, "depth": {}, "parsing": {}}
    )
    assert figures == {"semseg": {"mIoU": 0.1, "mIoU/voc": 0.5}}


def test_each_class_is_named_where_it_is_asked_for() -> None:
    task = make_task("semseg", "objects_rooms")
    assert task.space is not None
    evaluation = Evaluation([task], per_class=True)
    outputs = {
        "semseg": row(15, 15).byte(),
        "semseg/voc": row(15, 15).byte(),
        "semseg/nyu40": row(0, 0).byte(),
    }
    targets = torch.from_numpy(task.space.targets.parts["voc"].table[[15, 12]]).view(1, 1, -1)
    evaluation.update(outputs, {"semseg": targets})
    figures = evaluation.compute()["semseg"]
    assert {name: value for name, value in figures.items() if name.startswith("IoU/")} == {
        "IoU/person/voc": 0.5,
        "IoU/dog/voc": 0.0,
    }
