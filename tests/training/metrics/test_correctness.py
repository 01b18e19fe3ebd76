"""Where a map is right, kind by kind."""

import math

import pytest
import torch

from mtcp_serve.kinds import KINDS
from training.label_spaces import IGNORE_LABEL
from training.metrics.correctness import CRITERIA, DEGREES, FACTOR, judge
from training.tasks import Task, make_task


def check(task: Task, output: torch.Tensor, target: torch.Tensor, right: list[bool | None]) -> None:
    """``right`` has None where the label does not tell."""
    found, known = judge(task, output, target)
    assert known.flatten().tolist() == [value is not None for value in right]
    assert found.flatten().tolist() == [bool(value) for value in right]


def test_labels_are_right_where_the_label_allows_them() -> None:
    task = make_task("semseg", "objects_rooms")
    assert task.space is not None
    names, voc = task.space.labels, task.space.targets.parts["voc"]
    background, chair = (int(voc.table[voc.labels.index(label)]) for label in ("background", "chair"))
    maps = torch.tensor([[[names.index(n) for n in ("wall", "chair", "chair", "wall", "wall")]]]).byte()
    labels = torch.tensor([[[background, background, chair, chair, IGNORE_LABEL]]]).byte()
    check(task, maps, labels, [True, False, True, False, None])


def test_depth_is_right_within_a_factor() -> None:
    metres = torch.tensor([[[2.49, 2.51, 1.61, 1.59, 2.0]]])
    truth = torch.tensor([[[[2.0, 2.0, 2.0, 2.0, 0.0]]]])
    check(make_task("depth"), metres, truth, [True, False, True, False, None])


def test_normals_are_right_within_an_angle() -> None:
    angles = [math.radians(DEGREES + change) for change in (-0.1, 0.1)]
    maps = torch.tensor([[[[math.sin(a), 0, math.cos(a)] for a in (*angles, 0)]]])
    truth = torch.zeros(1, 3, 1, 3)
    truth[0, 2, 0, :2] = 0.5  # of labels out of 8-bit files the length is not quite 1
    check(make_task("normals"), maps, truth, [True, False, None])


def test_probabilities_are_right_on_the_side_of_the_label() -> None:
    maps = torch.tensor([[[0.6, 0.4, 0.6, 0.4, 0.9]]])
    truth = torch.tensor([[[[1.0, 1.0, 0.2, 0.2, -1.0]]]])
    check(make_task("saliency"), maps, truth, [True, False, False, True, None])


def test_the_words_for_people_say_the_same() -> None:
    assert CRITERIA.keys() == KINDS.keys()
    assert f"factor of {FACTOR:g}" in KINDS["depth"].criterion
    assert f"{DEGREES:g} degrees" in KINDS["normals"].criterion
    assert len({kind.criterion for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("name", ["depth", "normals", "saliency"])
def test_a_true_map_is_right_everywhere(name: str) -> None:
    truth = torch.rand(2, 3 if name == "normals" else 1, 4, 5) * 0.4 + 0.05
    maps = truth.movedim(1, -1) if name == "normals" else truth[:, 0]
    right, known = judge(make_task(name), maps, truth)
    assert right.all()
    assert known.all()
