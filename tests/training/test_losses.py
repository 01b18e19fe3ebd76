"""Losses against closed forms, and their behaviour where labels are missing or degenerate."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.losses import (
    LOSSES,
    MetricError,
    balanced_bce,
    depth_loss,
    edge_bce,
    labelled_pixels,
    normals_loss,
    scale_and_shift_invariant,
    task_losses,
)
from training.tasks import Task, entry, make_task

SEMSEG, DEPTH, NORMALS, SALIENCY = (
    make_task("semseg", "voc"),
    make_task("depth"),
    make_task("normals"),
    make_task("saliency"),
)
EDGES = make_task("edges")
TASKS = [SEMSEG, DEPTH, NORMALS, SALIENCY, make_task("parsing", "fashion")]
B, H, W = 3, 5, 7


def predictions(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps = {task.name: torch.randn(B, task.channels, H, W, generator=generator) for task in TASKS}
    maps["depth"] = maps["depth"].exp()
    return {name: value.requires_grad_() for name, value in maps.items()}


def unlabelled() -> dict[str, Tensor]:
    return {
        "semseg": torch.full((B, H, W), 255),
        "parsing": torch.full((B, H, W), 255),
        "depth": torch.zeros(B, 1, H, W),
        "disparity": torch.zeros(B, 1, H, W),
        "normals": torch.zeros(B, 3, H, W),
        "saliency": torch.full((B, 1, H, W), -1.0),
    }


@pytest.mark.parametrize("batch", [unlabelled(), {}], ids=["ignored", "absent"])
@pytest.mark.parametrize("poison", [1.0, math.inf, math.nan])
def test_missing_labels_cost_exactly_nothing(batch: dict[str, Tensor], poison: float) -> None:
    maps = {name: (value.detach() * poison).requires_grad_() for name, value in predictions().items()}
    if not math.isfinite(poison):
        # Only the label losses drop unlabelled images before they look at them.
        maps = {name: value for name, value in maps.items() if name in ("semseg", "parsing") or not batch}
    tasks = [task for task in TASKS if task.name in maps]
    losses = task_losses(maps, batch, tasks)
    assert all(loss.item() == 0 for loss in losses.values())
    torch.autograd.backward(list(losses.values()))
    for value in maps.values():
        assert value.grad is not None
        assert value.grad.abs().max().item() == 0
    assert labelled_pixels(batch, tasks).tolist() == [0] * len(tasks)


def test_labelled_pixels_are_counted() -> None:
    batch = unlabelled()
    batch["semseg"][1, 2, 3] = 4
    batch["disparity"][0, 0, 1, 1] = 0.5
    assert labelled_pixels(batch, TASKS).tolist() == [1, 1, 0, 0, 0]


def test_only_labelled_pixels_have_a_gradient() -> None:
    maps, batch = predictions(), unlabelled()
    batch["semseg"][0, 0, 0] = 3
    batch["depth"][0, 0, 0, 0] = 2.0
    batch["normals"][0, :, 0, 0] = torch.tensor([0.0, 0.6, 0.8])
    batch["saliency"][0, 0, 0, 0] = 0.5
    tasks = TASKS[:4]
    torch.autograd.backward(list(task_losses(maps, batch, tasks).values()))
    for task in tasks:
        grad = maps[task.name].grad
        assert grad is not None
        touched = grad.abs().sum(dim=1) > 0
        assert touched.nonzero().tolist() == [[0, 0, 0]], task.name


def test_metric_depth_is_mean_absolute_metres_over_valid_pixels() -> None:
    depth = torch.tensor([[1.0, 2.0], [3.0, 9.0]]).view(1, 1, 2, 2)
    target = torch.tensor([[2.0, 2.5], [3.0, 0.0]]).view(1, 1, 2, 2)
    assert depth_loss(depth, {"depth": target}, DEPTH).item() == pytest.approx(0.5)


def test_the_best_constant_depth_is_the_median_in_l1_and_the_mean_in_l2() -> None:
    target = torch.tensor([1.0, 1.0, 2.0, 8.0]).view(1, 1, 2, 2)
    candidates = torch.arange(1.0, 8.0, 0.5)

    def best(error: MetricError) -> float:
        maps = [torch.full((1, 1, 2, 2), float(value)) for value in candidates]
        losses = [task_losses({"depth": m}, {"depth": target}, [DEPTH], None, error)["depth"] for m in maps]
        return float(candidates[torch.stack(losses).argmin()])

    assert 1.0 <= best("l1") <= 2.0
    assert best("l2") == 3.0
    assert depth_loss(torch.full_like(target, 3.0), {"depth": target}, DEPTH, "l2").item() == 8.5


def test_depth_sources_are_averaged_by_images() -> None:
    generator = torch.Generator().manual_seed(1)
    depth = torch.rand(3, 1, H, W, generator=generator) + 0.5
    metres, disparity = torch.zeros(3, 1, H, W), torch.zeros(3, 1, H, W)
    metres[:2] = depth[:2] + 0.3
    disparity[2] = torch.rand(1, H, W, generator=generator) + 0.1
    relative = scale_and_shift_invariant(1 / depth, disparity, disparity > 0)[0].sum()
    both = depth_loss(depth, {"depth": metres, "disparity": disparity}, DEPTH)
    assert both.item() == pytest.approx((2 * 0.3 + relative.item()) / 3, rel=1e-5)


@settings(max_examples=30)
@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_relative_depth_ignores_scale_and_shift_of_the_label(scale: float, shift: float) -> None:
    inverse = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    valid = inverse > 0.15
    error, informative = scale_and_shift_invariant(inverse, scale * inverse + shift, valid)
    assert informative.all()
    assert error.max().item() < 1e-9


def test_relative_depth_is_worst_for_the_reversed_order() -> None:
    inverse = torch.arange(1.0, 10).view(1, 1, 3, 3)
    valid = torch.ones_like(inverse, dtype=torch.bool)
    # median 5, mean absolute deviation 20/9: reversed maps differ by twice the normalised deviation
    assert scale_and_shift_invariant(inverse, -inverse, valid)[0].item() == pytest.approx(2.0)


@pytest.mark.parametrize("constant", ["prediction", "target", "both"])
def test_constant_maps_keep_relative_depth_finite(constant: str) -> None:
    varied = torch.rand(2, 1, H, W, generator=torch.Generator().manual_seed(0)) + 0.5
    flat = torch.full((2, 1, H, W), 0.7)
    depth = (flat if constant != "target" else varied).clone().requires_grad_()
    disparity = flat if constant != "prediction" else varied
    loss = depth_loss(depth, {"disparity": disparity}, DEPTH)
    torch.autograd.backward(loss)
    assert depth.grad is not None
    assert depth.grad.isfinite().all()
    assert depth.grad.abs().max().item() < 1 / 0.01
    assert (loss.item() == 0) == (constant != "prediction")


def test_an_uninformative_disparity_does_not_dilute_the_others() -> None:
    disparity = torch.rand(2, 1, H, W, generator=torch.Generator().manual_seed(0)) + 0.1
    depth = torch.rand(2, 1, H, W, generator=torch.Generator().manual_seed(1)) + 0.5
    alone = depth_loss(depth[:1], {"disparity": disparity[:1]}, DEPTH)
    disparity[1] = 0.3
    assert depth_loss(depth, {"disparity": disparity}, DEPTH).item() == pytest.approx(alone.item())


def test_normals_do_not_care_for_length() -> None:
    target = torch.zeros(1, 3, 1, 2)
    target[0, 2, 0, 0] = 1  # the second pixel is invalid
    right = torch.tensor([0.0, 0.0, 7.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    sideways = torch.tensor([0.2, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert normals_loss(right, {"normals": target}, NORMALS).item() == pytest.approx(0)
    assert normals_loss(sideways, {"normals": target}, NORMALS).item() == pytest.approx(2 / 3)


def test_saliency_weighs_foreground_and_background_equally() -> None:
    target = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0]).view(1, 1, 1, 5)
    logits = torch.zeros_like(target, requires_grad=True)
    loss = balanced_bce(logits, {"saliency": target}, SALIENCY)
    # weights .75 on the one foreground pixel and .25 on each of three background pixels
    assert loss.item() == pytest.approx((0.75 + 3 * 0.25) * math.log(2) / 4)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-7)
    assert logits.grad[0, 0, 0, 4].item() == 0


def test_saliency_equals_the_textbook_form_on_soft_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    target, logits = torch.rand(2, 1, H, W, generator=generator), torch.randn(2, 1, H, W, generator=generator)
    weight = (1 - target).mean()
    p = logits.sigmoid()
    expected = -(weight * target * p.log() + (1 - weight) * (1 - target) * (1 - p).log()).mean()
    assert balanced_bce(logits, {"saliency": target}, SALIENCY).item() == pytest.approx(expected.item())


def test_edges_have_fixed_weights() -> None:
    target = torch.tensor([1.0, 0.0, 0.0, 0.0, -1.0]).view(1, 1, 1, 5)
    logits = torch.zeros_like(target, requires_grad=True)
    loss = task_losses({"edges": logits}, {"edges": target}, [EDGES])["edges"]
    assert loss.item() == pytest.approx((0.95 + 3 * 0.05) * math.log(2) / 4)
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-0.95 / 8, *[0.05 / 8] * 3, 0])


def test_an_image_without_edges_still_teaches() -> None:
    """The batch-balanced loss would weigh its background with the share of edges: nothing."""
    target, logits = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert edge_bce(logits, {"edges": target}, EDGES).item() == pytest.approx(0.05 * math.log(2))
    assert balanced_bce(logits, {"saliency": target}, SALIENCY).item() == 0
    assert edge_bce(logits, {"edges": torch.full_like(target, -1)}, EDGES).item() == 0
    assert edge_bce(logits, {}, EDGES).item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_fp32_under_autocast(dtype: torch.dtype) -> None:
    batch = unlabelled()
    batch["semseg"][:] = 1
    batch["depth"] += 1.5
    batch["normals"][:, 2] = 1
    batch["saliency"][:] = 0.25
    maps = {name: value.detach().to(dtype) for name, value in predictions().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task_losses(maps, batch, TASKS)
    expected = task_losses({name: value.float() for name, value in maps.items()}, batch, TASKS)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == expected[name].item()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_every_loss_has_a_correct_gradient(loss: Callable[[Tensor, dict[str, Tensor], Task], Tensor]) -> None:
    task = next(task for task in [*TASKS, EDGES] if entry(LOSSES, task) is loss)
    generator = torch.Generator().manual_seed(3)
    batch = {
        "semseg": torch.randint(0, 21, (2, 3, 3), generator=generator),
        "depth": torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64) + 0.5,
        "disparity": torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64) + 0.5,
        "normals": torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64),
        "saliency": torch.rand(2, 1, 3, 3, generator=generator, dtype=torch.float64),
        "edges": torch.randint(0, 2, (2, 1, 3, 3), generator=generator).double(),
    }
    prediction = torch.rand(2, task.channels, 3, 3, generator=generator, dtype=torch.float64) + 0.5
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: loss(maps, batch, task), prediction)
