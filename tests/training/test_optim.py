"""The groups of the optimizer."""

import math

import pytest
import torch
from torch import nn

from tests.training.tiny import tiny_model
from training.balancing import build_balancer
from training.config import ConfigError, OptimConfig, load_config
from training.model import MTCP
from training.optim import GuardedAdamW, build_optimizer, parameter_groups
from training.parts import build_network


@pytest.mark.parametrize(
    ("name", "usual"),
    [("gradnorm", 0.025), ("uncertainty", 0.1), ("imtl_l", 0.1), ("imtl", 0.1), ("ial", 0.1)],
)
@pytest.mark.parametrize("lr", [None, 0.5, 0.0])
def test_a_balancer_has_the_rate_it_asks_for_and_no_decay(name: str, usual: float, lr: float | None) -> None:
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False))
    options, rate = ({}, usual) if lr is None else ({"lr": lr}, lr)
    optimizer = build_optimizer(network, build_balancer(name, 2, options), OptimConfig(lr=0.1))
    own = optimizer.param_groups[-1]
    assert (own["lr"], own["weight_decay"]) == (rate, 0.0)
    assert own["params"][0].shape == (2,)


@pytest.mark.parametrize(("flag", "decays"), [(False, 0.0), (True, 1e-4)])
def test_norms_and_biases_decay_where_the_flag_says_so(flag: bool, decays: float) -> None:
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False))
    groups = parameter_groups(network, OptimConfig(decay_norms_and_biases=flag))
    found = {group["weight_decay"] for group in groups for p in group["params"] if p.ndim == 1}
    assert found == {decays}
    assert {group["weight_decay"] for group in groups for p in group["params"] if p.ndim > 1} == {1e-4}


def updated(skips: list[float], gradients: list[float]) -> tuple[nn.Parameter, GuardedAdamW]:
    weight = nn.Parameter(torch.ones(3))
    optimizer = GuardedAdamW([{"params": [weight]}], lr=0.1, weight_decay=0.5)
    for skip, gradient in zip(skips, gradients, strict=True):
        weight.grad = torch.full((3,), gradient)
        optimizer.skip = torch.tensor(skip)
        optimizer.step()
    return weight, optimizer


def test_a_guarded_step_changes_neither_weights_nor_moments() -> None:
    """As if it had never been: the steps around it give what they give alone."""
    guarded, one = updated([0.0, 1.0, 0.0], [2.0, math.nan, 3.0])
    plain, other = updated([0.0, 0.0], [2.0, 3.0])
    assert torch.equal(guarded, plain)
    for key, value in one.state[guarded].items():
        assert torch.equal(value, other.state[plain][key]), key
    reference = nn.Parameter(torch.ones(3))
    adamw = torch.optim.AdamW([reference], lr=0.1, weight_decay=0.5)
    for gradient in (2.0, 3.0):
        reference.grad = torch.full((3,), gradient)
        adamw.step()
    torch.testing.assert_close(guarded, reference, rtol=1e-6, atol=1e-7)


def test_a_loss_scaler_and_the_guard_both_keep_a_step_back() -> None:
    for skip, gradient in ((0.0, math.inf), (1.0, 1.0)):
        weight = nn.Parameter(torch.ones(3))
        optimizer = GuardedAdamW([{"params": [weight]}], lr=0.1, weight_decay=0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        scaler.scale(weight.sum() * gradient).backward()  # type: ignore[no-untyped-call]
        optimizer.skip = torch.tensor(skip)
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(weight, torch.ones(3))
        assert scaler.get_scale() == (4.0 if gradient == 1 else 2.0)


def test_only_parameters_that_a_pattern_fits_are_trained_and_kept_norms_stand_still() -> None:
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    network.train_only([r"^branches\.head", r"dfpn"])
    network.train()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    fitting = ("branches.head", "branches.dfpn")
    assert trained == {
        name for name, _ in network.named_parameters() if name.startswith(fitting) and name not in frozen
    }
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 3, 64, 64) * 255
    optimizer = GuardedAdamW(parameter_groups(network, OptimConfig(lr=0.1)), lr=0.1, weight_decay=0.1)
    network(images).final["parsing"].square().mean().backward()
    optimizer.step()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith(fitting) for name in moved)
    assert any("running_mean" in name for name in moved)  # of the head's own norm
    assert network.training
    assert not network.backbone.training


@pytest.mark.parametrize(
    ("pattern", "what"), [("nothing", "fits no parameter that trains"), ("(", "not a regular expression")]
)
def test_a_pattern_that_fits_nothing_is_a_clear_error(pattern: str, what: str) -> None:
    config = load_config("scenes", [f"optim.train_only=['{pattern}']"])
    with pytest.raises(ConfigError, match=rf"optim\.train_only: .*{what}"):
        build_network(config)


def test_frozen_statistics_make_training_see_what_evaluation_sees() -> None:
    """An image's maps no longer depend on the batch that it is in, and scales and shifts train on."""
    network = MTCP(tiny_model(tasks={"parsing": "fashion", "saliency": None}))
    images = torch.rand(2, 3, 64, 64) * 255
    network.train()
    network(images)  # statistics of their own
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    alone = network.eval()(images[:1]).final["parsing"]
    assert not torch.allclose(network.train()(images).final["parsing"][:1], alone, atol=1e-4)
    network.load_state_dict(before, strict=False)
    network.freeze_statistics()
    for part in network.train().modules():
        if isinstance(part, nn.Dropout) or type(part).__name__ == "DropPath":
            part.eval()
    trained = network(images).final["parsing"]
    torch.testing.assert_close(trained[:1], alone, rtol=1e-4, atol=1e-5)
    trained.square().mean().backward()
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    norm = next(part for part in network.branches.modules() if isinstance(part, nn.BatchNorm2d))
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().sum() > 0


def test_random_weights_have_no_statistics_to_freeze() -> None:
    config = load_config("scenes", ["optim.freeze_statistics=true", "init=null"])
    with pytest.raises(ConfigError, match=r"optim\.freeze_statistics: .*name weights in init"):
        build_network(config)
