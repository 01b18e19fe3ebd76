"""What every method must keep, whatever it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.training.balancing.toy import TASKS, batch, look_ahead, toy
from training.balancing import BALANCERS, Balancer, MetaBalancer, Observation, TaskWeights, build_balancer

METHODS = sorted(BALANCERS)
SCALE_FREE = [
    "aligned_mtl",
    "cagrad",
    "gcs",
    "gradient_norm_scaling",
    "ial",
    "imtl",
    "imtl_g",
    "mgda",
    "pcgrad",
]
"""Methods whose weights see gradients' ratios only."""
OWN_SCALE = {"uncertainty": 1.5, "lps": 3 * 0.6931472}
"""Methods that begin equal with another sum than T."""
WITH_MEMORY = [
    "auto_lambda",
    "db_mtl",
    "dwa",
    "gradient_norm_scaling",
    "gradnorm",
    "ial",
    "imtl",
    "imtl_l",
    "lps",
    "ol_aux",
    "uncertainty",
]
"""Methods whose past shows in their weights."""
PRIMARY = ["gcs", "ial", "ol_aux"]
OPTIONS: dict[str, dict[str, object]] = {
    "manual": {"weights": [3.0, 1.0, 2.0]},
    "ial": {"map": "exp"},
    "ol_aux": {"beta": 0.1},
}


def make(name: str, **options: object) -> Balancer:
    return build_balancer(name, TASKS, OPTIONS.get(name, {}) | options)


def ask(balancer: Balancer, losses: Tensor, gradients: Tensor, step: int = 0) -> TaskWeights:
    if isinstance(balancer, MetaBalancer):
        look_ahead(balancer, toy(), batch(seed=step), batch(seed=step + 100))
    answer = balancer(Observation(losses, 0, step, gradients @ gradients.T))
    assert isinstance(answer, TaskWeights)
    return answer


def both(answer: TaskWeights) -> Tensor:
    """Heads and encoder weights, [2, T]."""
    encoder = answer.loss_weights if answer.gradient_weights is None else answer.gradient_weights
    return torch.stack([answer.loss_weights.detach(), encoder])


def learn(balancer: Balancer, losses: Tensor, answer: TaskWeights, rate: float = 0.1) -> None:
    """A gradient step of the method's own parameters."""
    own = list(balancer.parameters())
    if not own:
        return
    objective = (answer.loss_weights * losses).sum() + answer.penalty
    assert isinstance(objective, Tensor)
    if not objective.requires_grad:  # nothing to learn from
        return
    gradients = torch.autograd.grad(objective, own, materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.sub_(rate * gradient)


def stream(steps: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[1.0], [20.0], [0.1]])
    return [
        (torch.rand(3, generator=generator) + 0.1, torch.randn(3, 5, generator=generator) * sizes)
        for _ in range(steps)
    ]


def live(balancer: Balancer, steps: list[tuple[Tensor, Tensor]], start: int = 0) -> Tensor:
    """Weights [steps, 2, T] of a run in which an epoch ends after every second step."""
    weights = []
    for step, (losses, gradients) in enumerate(steps, start):
        answer = ask(balancer, losses, gradients, step)
        learn(balancer, losses, answer)
        weights.append(both(answer))
        if step % 2:
            balancer.end_epoch(losses)
    return torch.stack(weights)


numbers = st.sampled_from([0.0, 1e-12, 1e-3, 0.5, 1.0, 3.0, 1e3, 1e8])
signed = st.sampled_from([0.0, 1.0, -1.0, 1e-6, -0.5, 100.0, -1e4])


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.lists(numbers, min_size=3, max_size=3),
            st.lists(st.lists(signed, min_size=2, max_size=2), min_size=3, max_size=3),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_weights_are_finite(name: str, steps: list[tuple[list[float], list[list[float]]]]) -> None:
    run = [(torch.tensor(losses), torch.tensor(gradients)) for losses, gradients in steps]
    balancer = make(name)
    for step, (losses, gradients) in enumerate(run):
        answer = ask(balancer, losses, gradients, step)
        learn(balancer, losses, answer, 1e-9)
        balancer.end_epoch(losses)
        assert both(answer).isfinite().all()


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("random", "pcgrad", "auto_lambda")]
)
def test_the_order_of_tasks_does_not_matter(name: str) -> None:
    order = [2, 0, 1]
    options: dict[str, object] = {}
    if name in PRIMARY:
        options = {"primary": "depth"}
    plain = live(make(name, **options), stream(6))
    if name == "manual":
        options = {"weights": [2.0, 3.0, 1.0]}
    names = [TASKS[i] for i in order]
    mixed = build_balancer(name, names, OPTIONS.get(name, {}) | options)
    found = live(mixed, [(losses[order], gradients[order]) for losses, gradients in stream(6)])
    torch.testing.assert_close(found, plain[..., order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("random", "manual", "ial", "auto_lambda")]
)
def test_equal_tasks_have_equal_weights(name: str) -> None:
    answer = both(ask(make(name), torch.ones(3), torch.full((3, 4), 0.3)))
    expected = OWN_SCALE.get(name, 3.0) / 3
    torch.testing.assert_close(answer, torch.full((2, 3), expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_balancer_goes_on_identically(name: str) -> None:
    steps = stream(9)
    first = make(name)
    live(first, steps[:5])
    second = make(name)
    second.load_state_dict(first.state_dict())
    found = live(second, steps[5:], 5)
    assert torch.equal(found, live(first, steps[5:], 5))
    if name in WITH_MEMORY:
        assert not torch.equal(found[0], live(make(name), steps[5:], 5)[0])


@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("random", "auto_lambda", "manual")]
)
def test_a_task_without_a_label_disturbs_no_other(name: str) -> None:
    losses, gradients = stream(1)[0]
    two = build_balancer(name, TASKS[:2], OPTIONS.get(name, {}))
    expected = both(ask(two, losses[:2], gradients[:2]))
    absent = torch.tensor([[1.0], [1.0], [0.0]])
    found = both(ask(make(name), losses * absent[:, 0], gradients * absent))
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, :2], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SCALE_FREE)
def test_the_unit_of_the_gradients_does_not_matter(name: str) -> None:
    losses, gradients = stream(1)[0]
    plain = both(ask(make(name), losses, gradients))
    for unit in (1e-5, 1e4):
        torch.testing.assert_close(
            both(ask(make(name), losses, gradients * unit)), plain, rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("name", ["gradient_norm_scaling", "imtl_g"])
def test_the_unit_of_a_loss_does_not_matter(name: str) -> None:
    losses, gradients = stream(1)[0]
    units = torch.tensor([1.0, 1000.0, 0.01])
    plain = both(ask(make(name), losses, gradients))[1]
    found = both(ask(make(name), losses * units, gradients * units[:, None]))[1] * units
    torch.testing.assert_close(found / found.sum(), plain / plain.sum(), rtol=1e-4, atol=1e-6)
