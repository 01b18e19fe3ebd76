"""Parsing heeds where semantics see a person: closed forms."""

import math

import pytest
import torch

from tests.training.tiny import tiny_model
from training.model import MTCP, ModelConfig
from training.model.agreement import LEAST, PartsOnPeople
from training.tasks import make_task

SEMSEG, PARSING = make_task("semseg", "voc"), make_task("parsing", "fashion")
PERSON = SEMSEG.space.labels.index("person") if SEMSEG.space else -1


def final(person: float) -> dict[str, torch.Tensor]:
    """Semantics that see a person with probability ``person``; parsing with its own opinion, one pixel."""
    probabilities = torch.full((SEMSEG.channels,), (1 - person) / (SEMSEG.channels - 1))
    probabilities[PERSON] = person
    torch.manual_seed(0)
    parsing = torch.randn(1, PARSING.channels, 1, 1)
    return {"semseg": probabilities.log().view(1, -1, 1, 1), "parsing": parsing}


@pytest.mark.parametrize("person", [0.1, 0.5, 0.99])
def test_background_is_as_likely_as_both_heads_say_together(person: float) -> None:
    before = final(person)
    after = PartsOnPeople([SEMSEG, PARSING])(before)
    expected = before["parsing"].clone()
    expected[:, 0] += math.log(1 - person)
    torch.testing.assert_close(after["parsing"], expected, rtol=0, atol=1e-4)  # 1 - p, in float32
    assert after["semseg"] is before["semseg"]


def test_certain_semantics_take_a_bounded_amount() -> None:
    before = final(1 - 1e-7)
    after = PartsOnPeople([SEMSEG, PARSING])(before)
    torch.testing.assert_close(
        after["parsing"][:, 0] - before["parsing"][:, 0],
        torch.full((1, 1, 1), math.log(LEAST)),
        rtol=0,
        atol=1e-4,
    )


def test_the_rule_belongs_to_evaluation() -> None:
    torch.manual_seed(0)
    tasks: dict[str, str | None] = {"semseg": "voc", "depth": None, "parsing": "fashion"}
    plain = MTCP(tiny_model(tasks=tasks))
    ruled = MTCP(plain.config.model_copy(update={"parts_on_people": True}))
    ruled.load_state_dict(plain.state_dict())
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain.eval(), ruled.eval()
    with torch.no_grad():
        before, after = plain(image).final, ruled(image).final
    torch.testing.assert_close(after["depth"], before["depth"])
    torch.testing.assert_close(after["parsing"][:, 1:], before["parsing"][:, 1:])
    assert (after["parsing"][:, 0] < before["parsing"][:, 0]).all()
    ruled.train()
    assert ruled.branches.agreement is not None
    shared = torch.randn(2, ruled.backbone.channels, 16, 16)
    predictions = ruled.decode(shared)
    assert predictions.joint is not None
    first = sum(task.channels for task in ruled.tasks[:2])
    torch.testing.assert_close(predictions.final["parsing"], predictions.joint[:, first:])


def test_tasks_without_people_are_refused() -> None:
    with pytest.raises(ValueError, match="parts_on_people needs a task"):
        ModelConfig(tasks={"semseg": "voc", "depth": None}, parts_on_people=True)
