"""Confidence heads learn what there is to learn, and calibration undoes what was done to them."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training.confidence.fit import calibrate, fit, fit_calibrated, fittable
from training.confidence.observations import Observations
from training.model.confidence import ConfidenceHeads
from training.model.exporting import as_exported
from training.tasks import make_task

TASKS = [make_task("depth"), make_task("saliency")]
CHANNELS = 4


def observations(count: int, seed: int, weight: tuple[float, float] = (1.0, 1.0)) -> Observations:
    """Depth is right with the logit 2 x0 + 1 of the first input, saliency where the second one is above 5."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, ConfidenceHeads(CHANNELS, TASKS).hidden.in_channels, generator=draw)
    inputs[:, 1] = 5 + 3 * inputs[:, 1]
    likely = (2 * inputs[:, 0] + 1).sigmoid()
    depth = torch.rand(count, generator=draw) < likely
    right = torch.stack([depth, inputs[:, 1] > 5], 1).float()
    image = torch.arange(count) // 100
    return Observations(inputs.half(), right, torch.tensor(weight).expand(count, 2), image)


def logits(heads: ConfidenceHeads, seen: Observations) -> Tensor:
    with torch.no_grad():
        return heads.logits(seen.inputs.float()[:, :, None, None]).flatten(1)


@pytest.fixture(scope="module")
def fitted() -> ConfidenceHeads:
    heads = ConfidenceHeads(CHANNELS, TASKS)
    fit(heads, observations(20_000, 0), seed=0)
    return heads


def test_an_exported_graph_has_the_same_heads_without_a_copy_of_the_features() -> None:
    draw = torch.Generator().manual_seed(0)
    heads = ConfidenceHeads(CHANNELS, TASKS)
    features = torch.randn(2, len(TASKS) * CHANNELS, 5, 6, generator=draw)
    final = {task.name: torch.rand(2, 1, 5, 6, generator=draw) for task in TASKS}
    with torch.no_grad():
        expected = heads(features, final)
        with as_exported():
            found = heads(features, final)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_predictable_errors_are_predicted(fitted: ConfidenceHeads) -> None:
    seen = observations(5_000, 1)
    found = logits(fitted, seen).sigmoid()
    wanted = (2 * seen.inputs[:, 0].float() + 1).sigmoid()
    assert (found[:, 0] - wanted).abs().mean() < 0.04
    assert ((found[:, 1] > 0.5) == (seen.right[:, 1] > 0.5)).float().mean() > 0.97


def test_the_fit_is_repeatable_and_leaves_the_generator_alone(fitted: ConfidenceHeads) -> None:
    again, seen = ConfidenceHeads(CHANNELS, TASKS), observations(20_000, 0)
    state = torch.get_rng_state()
    fit(again, seen, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in fitted.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_calibration_finds_scale_and_shift(fitted: ConfidenceHeads) -> None:
    """What is too sure by a factor of 3, and by 1 too doubtful, is brought back."""
    heads = copy.deepcopy(fitted)
    with torch.no_grad():
        assert heads.output.bias is not None
        heads.output.weight[0] *= 3
        heads.output.bias[0] = 3 * heads.output.bias[0] - 1
    seen = observations(20_000, 2)
    before = logits(heads, seen)
    scale, shift = calibrate(heads, seen)["depth"]
    assert scale == pytest.approx(1 / 3, rel=0.1)
    assert shift == pytest.approx(1 / 3, abs=0.1)
    torch.testing.assert_close(logits(heads, seen)[:, 0], scale * before[:, 0] + shift, rtol=1e-4, atol=1e-4)
    assert (logits(heads, seen)[:, 0].sigmoid().mean() - seen.right[:, 0].mean()).abs() < 1e-3


def test_cross_fitting_sees_through_what_is_only_right_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training all is right: what is held says what is so, and calibration what of it was learned."""
    monkeypatch.setattr("training.confidence.fit.STEPS", 300)
    training, held, new = (observations(4_000, seed) for seed in (4, 5, 6))
    training.right.fill_(1)
    found = {}
    for name, parts in (("one", torch.zeros(4_000)), ("four", torch.arange(4_000) // 1_000)):
        heads = ConfidenceHeads(CHANNELS, TASKS)
        numbers = fit_calibrated(heads, training, held, parts, seed=0)
        assert numbers.keys() == {"depth", "saliency"}
        found[name] = logits(heads, new).sigmoid()
        assert (found[name].mean(0) - new.right.mean(0)).abs().max() < 0.03, name
    errors = {name: (found[name][:, 1] - new.right[:, 1]).abs().mean() for name in found}
    assert errors["four"] < 0.3 < 0.45 < errors["one"]  # training alone cannot tell right from wrong


def test_labels_in_validation_images_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.confidence.fit.STEPS", 20)
    training, held = observations(1_000, 3, weight=(0.5, 0.0)), observations(1_000, 4)
    heads = ConfidenceHeads(CHANNELS, TASKS)
    numbers = fit_calibrated(heads, training, held, torch.arange(1_000) // 500, seed=0)
    assert numbers.keys() == {"depth", "saliency"}
    assert logits(heads, held).isfinite().all()


def test_a_task_is_fitted_where_there_are_labels_to_fit_to_and_others_to_calibrate_by() -> None:
    both, depth = observations(200, 0), observations(200, 0, weight=(0.5, 0.0))
    one, two = torch.zeros(200), torch.arange(200) // 100
    assert fittable(both, both, one) == [True, True]
    assert fittable(both, depth, two) == [True, False], "nothing to calibrate by"
    assert fittable(depth, both, two) == [True, True]
    assert fittable(depth, both, one) == [True, False], "nothing to fit to"
    weight = both.weight.clone()
    weight[:100, 1] = 0
    assert fittable(depth, replace(both, weight=weight), two) == [True, False], (
        "one part of two cannot be judged by the other"
    )


def test_heads_of_some_tasks_read_all_of_them() -> None:
    heads = ConfidenceHeads(CHANNELS, TASKS, TASKS[1:])
    every = ConfidenceHeads(CHANNELS, TASKS)
    assert heads.hidden.weight.shape == every.hidden.weight.shape
    with torch.no_grad():
        heads.hidden.load_state_dict(every.hidden.state_dict())
        heads.output.weight.copy_(every.output.weight[1:])
        assert heads.output.bias is not None
        assert every.output.bias is not None
        heads.output.bias.copy_(every.output.bias[1:])
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, len(TASKS) * CHANNELS, 5, 6, generator=draw)
    final = {task.name: torch.rand(2, 1, 5, 6, generator=draw) for task in TASKS}
    with torch.no_grad():
        found, wanted = heads(features, final), every(features, final)
    assert found.keys() == {"saliency"}
    torch.testing.assert_close(found["saliency"], wanted["saliency"])
