import math
from collections.abc import Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.training.balancing.toy import TASKS, Toy, batch, gradients, task_losses, toy
from training.balancing import Balancer, Engine, Observation, TaskWeights, build_balancer

HEADS = torch.tensor([2.0, 0.5, 3.0])
ENCODER = torch.tensor([0.0, 4.0, 1.5])


class Recorder(Balancer):
    """Fixed weights; remembers what it saw."""

    needs_gramian: ClassVar[bool] = True

    def __init__(self, heads: Tensor = HEADS) -> None:
        super().__init__(len(heads))
        self.chosen = heads
        self.seen: list[Observation] = []

    def forward(self, observation: Observation) -> TaskWeights:
        self.seen.append(observation)
        return TaskWeights(self.chosen, penalty=7.0)


class Split(Recorder):
    separate_encoder_weights: ClassVar[bool] = True

    def __init__(self, heads: Tensor = HEADS, encoder: Tensor = ENCODER) -> None:
        super().__init__(heads)
        self.encoder = encoder

    def forward(self, observation: Observation) -> TaskWeights:
        return TaskWeights(super().forward(observation).loss_weights, self.encoder, penalty=7.0)


def backward(total: Tensor) -> None:
    total.backward()  # type: ignore[no-untyped-call]


def trained(engine: Engine, step: int = 0, network: Toy | None = None) -> dict[str, Tensor]:
    network = network or toy()
    backward(network(*batch(), engine, step).total)
    return gradients(network)


def weighted(heads: Tensor, folded: Tensor, rest: float = 1.0) -> dict[str, Tensor]:
    """Gradients of heads . L + folded . F + rest * coherence by plain autograd."""
    network = toy()
    inputs, targets = batch()
    losses, inner, extra = network.terms(network.encoder(inputs), targets)
    backward((heads * torch.stack(losses)).sum() + (folded * torch.stack(inner)).sum() + rest * extra)
    return gradients(network)


def task_gradients(*, folded: bool) -> Tensor:
    """g_i, one a row, by plain autograd."""
    network = toy()
    inputs, targets = batch()
    z = network.encoder(inputs)
    losses, inner, _ = network.terms(z, targets)
    tasks = [a + b if folded else a for a, b in zip(losses, inner, strict=True)]
    return torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in tasks])


def same(found: dict[str, Tensor], expected: dict[str, Tensor], names: Sequence[str] = ("",)) -> None:
    for name, gradient in expected.items():
        if name.startswith(tuple(names)):
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def test_without_encoder_weights_it_is_the_weighted_sum() -> None:
    balancer = Recorder()
    same(trained(Engine(balancer)), weighted(HEADS, torch.ones(3)))
    g = task_gradients(folded=False)
    torch.testing.assert_close(balancer.seen[0].gramian, g @ g.T)


def test_in_split_mode_heads_and_encoder_have_their_own_weights() -> None:
    balancer = Split()
    found = trained(Engine(balancer))
    same(found, weighted(HEADS, HEADS), ["heads", "inner"])
    same(found, weighted(ENCODER, ENCODER), ["encoder"])
    g = task_gradients(folded=True)
    torch.testing.assert_close(balancer.seen[0].gramian, g @ g.T)


def test_equal_weights_in_split_mode_are_the_plain_sum() -> None:
    combined = trained(Engine(build_balancer("equal", 3, {})))
    same(trained(Engine(Split(torch.ones(3), torch.ones(3)))), combined)
    same(combined, weighted(torch.ones(3), torch.ones(3)))


@pytest.mark.parametrize("kind", [Recorder, Split])
def test_the_joined_gramian_is_the_sum_of_the_ranks_over_their_number_squared(kind: type[Recorder]) -> None:
    inputs, targets = batch()
    joined = kind()
    toy()(inputs, targets, Engine(joined))
    halves = kind()
    for part in (slice(0, 2), slice(2, 4)):
        toy()(inputs[part], targets[part], Engine(halves))
    expected = (halves.seen[0].gram + halves.seen[1].gram) / 4
    torch.testing.assert_close(joined.seen[0].gram, expected)
    mean = kind()  # a rank that is given the mean over two ranks
    toy()(inputs, targets, Engine(mean, reduce=lambda numbers: numbers, ranks=2))
    torch.testing.assert_close(mean.seen[0].gram, joined.seen[0].gram / 2)


def test_the_value_is_losses_extras_and_penalty() -> None:
    network = toy()
    inputs, targets = batch()
    losses, folded, rest = network.terms(network.encoder(inputs), targets)
    for balancer, inner in ((Recorder(), torch.ones(3)), (Split(), HEADS)):
        balanced = network(inputs, targets, Engine(balancer))
        expected = (HEADS * torch.stack(losses)).sum() + (inner * torch.stack(folded)).sum() + rest + 7
        torch.testing.assert_close(balanced.total, expected)
        torch.testing.assert_close(balanced.losses, torch.stack(losses).detach())
        assert torch.equal(balanced.loss_weights, HEADS)
        assert not balanced.losses.requires_grad


def test_impartial_heads_do_not_depend_on_the_primary_task() -> None:
    found = {}
    for primary in TASKS:
        balancer = build_balancer("ial", TASKS, {"primary": primary, "map": "softplus"})
        network = toy()
        found[primary] = trained(Engine(balancer), network=network)
        found[primary]["sigma"] = gradients(balancer)["log_variance"]
    same(found["depth"], found["semseg"], ["heads", "inner", "sigma"])
    same(found["normals"], found["semseg"], ["heads", "inner", "sigma"])
    assert not torch.allclose(found["depth"]["encoder.0.weight"], found["semseg"]["encoder.0.weight"])


def test_decoders_never_reach_the_encoder_in_split_mode() -> None:
    engine = Engine(Split(encoder=torch.zeros(3)))
    network = toy()
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    backward(engine.total(task_losses(losses, folded, rest * 0), shared, leaf, epoch=0, step=0).total)
    assert all(p.grad is not None and not p.grad.any() for p in network.encoder.parameters())


def test_in_between_the_last_weights_are_used_again_also_after_a_resume() -> None:
    balancer = Split()
    engine = Engine(balancer, update_interval=3)
    first = trained(engine, 0)
    balancer.chosen = balancer.encoder = torch.full((3,), 99.0)
    same(trained(engine, 1), first)
    resumed = Engine(Split(torch.zeros(3), torch.zeros(3)), update_interval=3)
    resumed.load_state_dict(engine.state_dict())
    same(trained(resumed, 2), first)
    assert [observation.step for observation in balancer.seen] == [0]
    trained(engine, 3)
    assert [observation.step for observation in balancer.seen] == [0, 3]
    assert engine.weights.loss_weights.tolist() == [99, 99, 99]


def test_a_first_step_in_between_asks_all_the_same() -> None:
    balancer = Recorder()
    trained(Engine(balancer, update_interval=4), step=5)
    assert [observation.step for observation in balancer.seen] == [5]


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_kept_from_the_balancer(spoil: float) -> None:
    balancer = Split()
    network, engine = toy(), Engine(balancer)
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    for spoiled in (([losses[0], losses[1] * spoil, losses[2]], rest), (losses, rest * spoil)):
        balanced = engine.total(task_losses(spoiled[0], folded, spoiled[1]), shared, leaf, epoch=0, step=0)
        assert not balanced.finite
        assert not balanced.total.isfinite()
        assert balanced.loss_weights.tolist() == [1, 1, 1]
    assert all(not observation.losses.any() and not observation.gram.any() for observation in balancer.seen)


def root_of_nothing(z: Tensor) -> Tensor:
    """Value 0, gradient NaN."""
    return (z * 0).sum().sqrt()


def test_a_gradient_that_is_not_finite_counts_as_none() -> None:
    balancer = Split(torch.ones(3), torch.ones(3))
    network, engine = toy(), Engine(balancer)
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    losses[1] = losses[1] + root_of_nothing(leaf)
    balanced = engine.total(task_losses(losses, folded, rest), shared, leaf, epoch=0, step=0)
    assert balanced.finite
    gram = balancer.seen[0].gram
    assert gram.isfinite().all()
    assert not gram[1].any()
    backward(balanced.total)
    without = torch.tensor([1.0, 0, 1])
    same(gradients(network), weighted(without, without), ["encoder"])


def test_a_loss_without_a_graph_has_no_gradient() -> None:
    balancer = Split()
    network, engine = toy(), Engine(balancer)
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    losses[2] = folded[2] = torch.zeros(())
    backward(engine.total(task_losses(losses, folded, rest), shared, leaf, epoch=0, step=0).total)
    assert not balancer.seen[0].gram[2].any()
    kept = torch.tensor([0.0, 4.0, 0.0])
    same(gradients(network), weighted(kept, kept), ["encoder"])


def scaled(scale: float, spoil: bool) -> tuple[dict[str, Tensor], Split]:
    balancer = Split()
    network, engine = toy(), Engine(balancer)
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    if spoil:
        losses[1] = losses[1] + root_of_nothing(leaf)
    balanced = engine.total(task_losses(losses, folded, rest), shared, leaf, epoch=0, step=0, scale=scale)
    backward(balanced.total * scale)
    return {name: g / scale for name, g in gradients(network).items()}, balancer


def test_a_loss_scale_changes_nothing() -> None:
    found, balancer = scaled(2.0**16, spoil=False)
    expected, unscaled = scaled(1.0, spoil=False)
    same(found, expected)
    torch.testing.assert_close(balancer.seen[0].gram, unscaled.seen[0].gram)


def test_under_a_loss_scale_an_overflow_reaches_the_scaler_but_not_the_balancer() -> None:
    found, balancer = scaled(2.0**16, spoil=True)
    assert not found["encoder.0.weight"].isfinite().any()
    assert balancer.seen[0].gram.isfinite().all()


def test_weights_of_a_step_that_overflows_are_not_used_again() -> None:
    engine = Engine(build_balancer("imtl_g", 3, {}), update_interval=2)
    network = toy()

    def step(number: int, spoil: bool = False) -> list[float]:
        shared = network.encoder(batch(seed=number)[0])
        leaf = engine.leaf(shared)
        losses, folded, rest = network.terms(leaf, batch(seed=number)[1])
        if spoil:
            losses[1] = losses[1] + root_of_nothing(leaf)
        terms = task_losses(losses, folded, rest)
        found = engine.total(terms, shared, leaf, epoch=0, step=number, scale=2.0**16)
        return found.gradient_weights.tolist()

    first = step(0)
    assert first[1] != 1
    step(2, spoil=True)
    assert step(3) == first
    assert step(4) != first


def test_half_precision_gradients_survive_through_the_loss_scale() -> None:
    tiny = 1e-6  # fp16 has one significant digit down there
    found = []
    for scale in (1.0, 2.0**14):
        balancer = Split()
        engine = Engine(balancer)
        shared = torch.ones(2, 3, requires_grad=True)
        leaf = engine.leaf(shared)
        losses = [(leaf.half() * (i + 1)).float().mean() * tiny for i in range(3)]
        terms = task_losses(losses, [torch.zeros(())] * 3, torch.zeros(()))
        engine.total(terms, shared, leaf, epoch=0, step=0, scale=scale)
        found.append(balancer.seen[0].gram[0, 0].item())
    assert found[1] == pytest.approx(tiny**2 / 6, rel=1e-3, abs=0)
    assert found[0] != pytest.approx(tiny**2 / 6, rel=0.1, abs=0)


def test_stacked_losses_are_as_good_as_separate_ones() -> None:
    network, engine = toy(), Engine(Split())
    inputs, targets = batch()
    shared = network.encoder(inputs)
    leaf = engine.leaf(shared)
    losses, folded, rest = network.terms(leaf, targets)
    total = engine.total(
        task_losses(torch.stack(losses), torch.stack(folded), rest), shared, leaf, epoch=0, step=0
    ).total
    backward(total)
    same(gradients(network), trained(Engine(Split())))


def test_a_learned_weight_has_its_gradient_from_the_averaged_losses() -> None:
    balancer = build_balancer("uncertainty", 3, {})
    network = toy()
    balanced = network(*batch(), Engine(balancer, reduce=lambda numbers: 3 * numbers))
    backward(balanced.total)
    torch.testing.assert_close(gradients(balancer)["log_variance"], 0.5 - 0.5 * balanced.losses)
    same(gradients(network), weighted(torch.full((3,), 0.5), torch.ones(3)))


def test_settled_weights_cost_no_more_gramians(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(build_balancer("gradient_norm_scaling", 3, {"freeze_after": 2}))
    for step in range(2):
        trained(engine, step)
    settled = engine.weights.loss_weights
    monkeypatch.setattr(torch.autograd, "grad", None)
    same(trained(engine, 2), weighted(settled, torch.ones(3)))


@pytest.mark.parametrize("wrong", [{"update_interval": 0}, {"ranks": 0}])
def test_bad_counts_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Engine(Recorder(), **wrong)  # type: ignore[arg-type]
