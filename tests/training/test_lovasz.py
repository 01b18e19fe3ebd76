"""The Lovász-softmax loss: against the discrete loss it extends, and with labels that are sets of classes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.config import ConfigError, load_config
from training.label_spaces import IGNORE_LABEL, LabelSpace
from training.losses import task_losses
from training.lovasz import STRIDE, _sets, lovasz_softmax
from training.tasks import make_task

PARSING = make_task("parsing", "fashion")
MIXED = make_task("semseg", "objects_rooms")


def space_of(task_space: LabelSpace | None) -> LabelSpace:
    assert task_space is not None
    return task_space


def sure(classes: Tensor, count: int, scale: float = 200.0) -> Tensor:
    """Logits [B,K,H,W] of a network that is sure of ``classes`` [B,H,W]."""
    return scale * torch.nn.functional.one_hot(classes, count).movedim(-1, 1).float()


def seen(maps: Tensor) -> Tensor:
    """The pixels that the loss looks at."""
    return maps[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def test_on_sure_predictions_it_is_one_minus_the_mean_iou_of_the_classes_that_are_there() -> None:
    generator = torch.Generator().manual_seed(0)
    found, labels = torch.randint(0, 5, (2, 3, 32, 40), generator=generator)
    labels[0, :9] = IGNORE_LABEL
    labels[labels == 4] = 3  # nowhere labelled, but predicted
    a, b = seen(found), seen(labels)
    known = b != IGNORE_LABEL
    ious = [
        ((a == c) & (b == c)).sum() / (((a == c) | (b == c)) & known).sum() for c in set(b[known].tolist())
    ]
    loss = lovasz_softmax(sure(found, PARSING.channels), labels, space_of(PARSING.space))
    assert loss.item() == pytest.approx(1 - torch.stack(ious).mean().item(), abs=1e-5)


def test_between_corners_it_is_the_lovasz_extension() -> None:
    """Two pixels of one class and one of another: worked out by hand from the definition."""
    logits = torch.zeros(1, PARSING.channels, STRIDE, 3 * STRIDE)
    probabilities = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.8, 0.2]])  # of classes 0 and 1 at three pixels
    logits[:, 2:] = -1e4
    for pixel, pair in enumerate(probabilities):
        logits[0, :2, :, pixel * STRIDE : (pixel + 1) * STRIDE] = pair.log()[:, None, None]
    labels = torch.zeros(1, STRIDE, 3 * STRIDE, dtype=torch.uint8)
    labels[..., 2 * STRIDE :] = 1
    # Class 0 errs by .8 (a false alarm), .6, .3: sets {3}, {3, 2}, all; 1 - IoU is 1/3, 2/3, 1.
    first = 0.8 * 1 / 3 + 0.6 * 1 / 3 + 0.3 * 1 / 3
    # Class 1 errs by .8 (missed), .6, .3 (false alarms): 1 - IoU is 1 at once.
    second = 0.8
    loss = lovasz_softmax(logits, labels, space_of(PARSING.space))
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-5)


def test_a_pixel_that_may_belong_to_a_set_counts_neither_for_nor_against_it() -> None:
    space = space_of(MIXED.space)
    voc, nyu = (space.targets.parts[name] for name in ("voc", "nyu40"))
    wall, person = space.labels.index("wall"), space.labels.index("person")
    labels = torch.full((1, 16, 16), int(voc.table[0]))  # background: the wall may be part of it
    labels[:, 8:] = int(nyu.table[list(nyu.labels).index("wall")])
    right = lovasz_softmax(sure(torch.full((1, 16, 16), wall), MIXED.channels), labels, space)
    wrong = torch.full((1, 16, 16), wall)
    wrong[:, :8] = person
    assert right.item() == pytest.approx(0, abs=1e-6)
    missed = lovasz_softmax(sure(wrong, MIXED.channels), labels, space)
    assert missed.item() == pytest.approx(0.5, abs=1e-6)  # all of the background, nothing of the wall


def test_no_label_costs_nothing_and_gradients_stay_finite() -> None:
    logits = torch.full((1, MIXED.channels, 8, 8), torch.inf, requires_grad=True)
    labels = torch.full((1, 8, 8), IGNORE_LABEL, dtype=torch.uint8)
    loss = lovasz_softmax(logits, labels, space_of(MIXED.space))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_descent_on_it_finds_a_small_class_that_cross_entropy_gives_up() -> None:
    """One shared bias must decide for all pixels of a colour, of which 4 in 10 are of the small class."""
    labels = torch.zeros(1, 40, 40, dtype=torch.uint8)
    colour = torch.zeros(1, 1, 40, 40)
    colour[..., :8] = 1
    labels[:, :16, :8] = 1
    outcome = {}
    for factor in (0.0, 20.0):
        bias = torch.zeros(1, PARSING.channels, 2, requires_grad=True)
        optimizer = torch.optim.Adam([bias], 0.1)
        for _ in range(60):
            logits = (bias[..., 0, None, None] * (1 - colour) + bias[..., 1, None, None] * colour).expand(
                1, PARSING.channels, 40, 40
            )
            optimizer.zero_grad()
            losses = task_losses(
                {"parsing": logits}, {"parsing": labels}, [PARSING], lovasz={"parsing": factor}
            )
            losses["parsing"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        outcome[factor] = bias[0, :, 1].argmax().item()
    assert outcome == {0.0: 0, 20.0: 1}


def test_a_network_without_the_task_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"loss\.lovasz\.depth: the network has no such task with classes"):
        load_config("scenes", ["loss.lovasz={depth: 1}"])


def test_distinct_sets_cover_all_targets() -> None:
    space = space_of(MIXED.space)
    sets = _sets(space, torch.device("cpu"))
    members = space.targets.members.astype(np.float32)
    np.testing.assert_array_equal((sets.same.float() @ sets.members).numpy(), members)
    assert (sets.same.sum(1) == 1).all()
    assert not (sets.same & sets.apart).any()
