"""Class weights taken back from the logits."""

import re

import pytest
import torch

from tests.training.tiny import tiny_model
from training.logit_adjustment import StrengthError, Strengths, undo_class_weights
from training.model import MTCP
from training.tasks import make_task


def test_class_weights_are_taken_back_from_the_logits() -> None:
    torch.manual_seed(0)
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False)).eval()
    images = torch.rand(1, 3, 64, 96) * 255
    weights = [1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 0.0, 0.5]  # 0: never learned, nothing to take back
    with torch.no_grad():
        before = network(images).final["parsing"]
        undo_class_weights(network, {"parsing": weights}, Strengths(0.5))
        after = network(images).final["parsing"]
    shift = -0.5 * torch.tensor([1.0, *weights[1:6], 1.0, 0.5]).log()[:, None, None].expand(8, 16, 24)
    torch.testing.assert_close((after - before)[0], shift, rtol=1e-4, atol=1e-5)


def test_strengths_are_of_everything_a_task_or_the_classes_of_a_label_space() -> None:
    strengths = Strengths.parse(["0.25", "parsing=1", "semseg/voc=0.5"])
    semseg, parsing = make_task("semseg", "objects_rooms"), make_task("parsing", "fashion")
    assert strengths.of_classes(parsing) == [1.0] * 8
    assert semseg.space is not None
    objects = {
        label
        for label, value in zip(semseg.space.labels, strengths.of_classes(semseg), strict=True)
        if value == 0.5
    }
    assert len(objects) == 20
    assert {"cow", "table", "television"} <= objects
    assert not {"other", "wall", "lamp"} & objects
    assert set(strengths.of_classes(semseg)) == {0.25, 0.5}
    assert Strengths.parse(["0.5", "0.75"]) == Strengths(0.75)
    assert Strengths.parse([]) == Strengths()


@pytest.mark.parametrize("entry", ["much", "1.5", "-0.1", "parsing=", "nan", "parsing=inf", "=0.5"])
def test_what_is_no_strength_is_refused(entry: str) -> None:
    with pytest.raises(
        StrengthError, match=rf"--undo-class-weights {re.escape(entry)}: give a strength from 0 to 1"
    ):
        Strengths.parse([entry])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("depth", "depth: the run weighed the classes of parsing"),
        ("semseg/voc", "semseg/voc: the run weighed the classes of parsing"),
        ("parsing/voc", "parsing/voc: parsing knows the label spaces fashion"),
    ],
)
def test_strengths_of_nothing_that_there_is_are_refused(key: str, message: str) -> None:
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False))
    with pytest.raises(StrengthError, match=message):
        undo_class_weights(network, {"parsing": [1.0] * 8}, Strengths(0, {key: 1.0}))
