"""Marginal cross-entropy against closed forms and against plain cross-entropy."""

import math

import pytest
import torch
from torch import Tensor

from training.label_loss import label_cross_entropy, marginal_cross_entropy
from training.tasks import Task, make_task

FASHION, UNION = make_task("parsing", "fashion"), make_task("semseg", "objects_rooms")
assert UNION.space is not None
TARGETS = UNION.space.targets
VOC, NYU = TARGETS.parts["voc"], TARGETS.parts["nyu40"]


def loss(logits: Tensor, target: Tensor, task: Task = UNION, weight: Tensor | None = None) -> Tensor:
    return label_cross_entropy(logits, {task.name: target}, task, weight)


def test_a_set_costs_minus_the_log_of_its_summed_probability() -> None:
    logits = torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    probability = logits.softmax(1).flatten()
    sets = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    log_members = torch.zeros(3, 3).masked_fill(~sets, -torch.inf)
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    found = [
        marginal_cross_entropy(logits, torch.full((1, 1, 1), row), log_members, valid).item()
        for row in range(3)
    ]
    expected = [-math.log(probability[0] + probability[2]), 0.0, -math.log(probability[1])]
    assert found == pytest.approx(expected, abs=1e-6)


def test_equal_logits_cost_the_log_of_the_odds_of_the_set() -> None:
    target = torch.full((2, 2, 2), 255, dtype=torch.uint8)
    target[0, 0] = torch.tensor([VOC.table[0], NYU.table[0]])  # background: 35 of 55; wall: 1 of 55
    found = loss(torch.zeros(2, 55, 2, 2), target)
    assert found.item() == pytest.approx((math.log(55 / 35) + math.log(55)) / 2)


def test_single_classes_cost_what_cross_entropy_says() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 55, 4, 5, generator=generator)
    classes = torch.randint(0, 55, (2, 4, 5), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, classes)
    torch.testing.assert_close(loss(logits, classes.byte()), expected)
    chairs = torch.full_like(classes, int(NYU.table[4]))  # chair of NYU-40 is VOC's chair, class 9 here
    expected = torch.nn.functional.cross_entropy(logits, torch.full_like(classes, 9))
    torch.testing.assert_close(loss(logits, chairs.byte()), expected)


def test_weights_make_a_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 8, 5, 7, generator=generator)
    target = torch.randint(0, 8, (3, 5, 7), generator=generator)
    target[0, 0], target[1] = 255, 255
    weights = torch.linspace(0.1, 3, 8)
    expected = torch.nn.functional.cross_entropy(logits, target, weights, ignore_index=255)
    torch.testing.assert_close(loss(logits, target.byte(), FASHION, weights), expected)
    torch.testing.assert_close(
        loss(logits, target.byte(), FASHION, torch.ones(8)), loss(logits, target.byte(), FASHION)
    )
    pair = torch.tensor([[[VOC.table[0], NYU.table[0]]]], dtype=torch.uint8)
    uneven = torch.ones(len(TARGETS.members))
    uneven[int(NYU.table[0])] = 3
    found = loss(torch.zeros(1, 55, 1, 2), pair, UNION, uneven)
    assert found.item() == pytest.approx((math.log(55 / 35) + 3 * math.log(55)) / 4)


def test_background_teaches_only_that_it_is_no_object() -> None:
    logits = torch.zeros(1, 55, 1, 1, requires_grad=True)
    found = loss(logits, torch.full((1, 1, 1), int(VOC.table[0]), dtype=torch.uint8))
    torch.autograd.backward([found])
    assert logits.grad is not None
    grad = logits.grad.flatten()
    inside = torch.from_numpy(VOC.members[0])
    assert (grad[inside] < 0).all()
    assert torch.allclose(grad[inside], grad[inside][0])
    assert (grad[~inside] > 0).all()


@pytest.mark.parametrize("poison", [1.0, math.inf, math.nan])
def test_missing_labels_cost_exactly_nothing(poison: float) -> None:
    logits = (torch.randn(2, 55, 3, 3) * poison).requires_grad_()
    found = loss(logits, torch.full((2, 3, 3), 255, dtype=torch.uint8))
    torch.autograd.backward([found])
    assert found.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max().item() == 0


def test_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    ids = [int(VOC.table[0]), int(VOC.table[15]), int(NYU.table[39]), 255]
    target = torch.tensor(ids, dtype=torch.uint8).view(1, 2, 2)
    logits = torch.randn(1, 55, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: loss(maps, target), logits)


@pytest.mark.parametrize("spread", [1.0, 40.0, 400.0])
def test_two_passes_are_the_difference_of_two_logarithms(spread: float) -> None:
    """And so is their gradient, also where a probability is too small for a number."""
    generator = torch.Generator().manual_seed(4)
    logits = spread * torch.randn(2, 6, 7, 55, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, len(TARGETS.members), (2, 6, 7), generator=generator)
    members = torch.from_numpy(TARGETS.members)
    slopes = torch.rand(2, 6, 7, generator=generator, dtype=torch.float64)

    def taught(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        maps = logits.to(dtype, copy=True).movedim(-1, 1).requires_grad_()
        log_members = torch.zeros(members.shape, dtype=dtype).masked_fill(~members, -torch.inf)
        found = marginal_cross_entropy(maps, targets, log_members, torch.ones(2, 6, 7, dtype=torch.bool))
        return found, torch.autograd.grad((found * slopes).sum(), maps)[0]

    rows = logits.clone().requires_grad_()
    expected = rows.logsumexp(-1) - rows.masked_fill(~members[targets], -torch.inf).logsumexp(-1)
    (slope,) = torch.autograd.grad((expected * slopes).sum(), rows)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        found, gradient = taught(dtype)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=spread * tolerance)
        torch.testing.assert_close(
            gradient.double(), slope.movedim(-1, 1), rtol=tolerance, atol=spread * tolerance
        )
