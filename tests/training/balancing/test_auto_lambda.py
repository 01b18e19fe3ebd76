import pytest
import torch
from torch import Tensor, nn

from tests.training.balancing.toy import batch, look_ahead, plain, toy
from training.balancing import Observation
from training.balancing.auto_lambda import AutoLambda
from training.balancing.meta import Losses

CENTRES = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 1.0]], dtype=torch.float64)
RATE = 0.2


class Point(nn.Module):
    """L_i = 1/2 |theta - c_i|^2, for which the central difference is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))

    def losses(self, centres: Tensor) -> Losses:
        return lambda: (0.5 * (self.theta - centres).square().sum(1), 0.05 * self.theta.square().sum())


def ahead(weights: Tensor, primaries: list[int]) -> Tensor:
    """The primaries' loss on the second batch after the trial step, as a function of lambda."""
    theta = Point().theta.detach()
    step = (weights[:, None] * (theta - CENTRES)).sum(0) + 0.1 * theta
    moved = theta - RATE * step
    return 0.5 * (moved - CENTRES.flip(1)[primaries]).square().sum()


@pytest.mark.parametrize(("primary", "primaries"), [("b", [1]), (["a", 2], [0, 2]), (None, [0, 1, 2])])
def test_the_meta_gradient_is_the_derivative_of_the_loss_ahead(
    primary: int | str | list[int | str] | None, primaries: list[int]
) -> None:
    balancer = AutoLambda(["a", "b", "c"], primary=primary)
    point = Point()
    before = point.theta.detach().clone()
    balancer.meta_step(point, point.losses(CENTRES), point.losses(CENTRES.flip(1)), RATE)
    weights = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(ahead(weights, primaries), weights)
    torch.testing.assert_close(balancer.gradient.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(point.theta, before)
    assert point.theta.grad is None


def test_it_approximates_the_derivative_in_a_network() -> None:
    network = toy().double()
    first, second = (tuple(x.double() for x in batch(seed=seed)) for seed in (0, 1))
    balancer = AutoLambda(3, primary=0)
    look_ahead(balancer, network, first, second)  # type: ignore[arg-type]
    weights = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    losses, rest = plain(network, first)  # type: ignore[arg-type]
    names, parameters = zip(*network.named_parameters(), strict=True)
    trial = torch.autograd.grad((weights * losses).sum() + rest, parameters, create_graph=True)
    moved = {name: p - 0.1 * g for name, p, g in zip(names, parameters, trial, strict=True)}
    encoded = {name.removeprefix("encoder."): p for name, p in moved.items() if name.startswith("encoder.")}
    z = torch.func.functional_call(network.encoder, encoded, second[0])
    prediction = nn.functional.linear(z, moved["heads.0.weight"], moved["heads.0.bias"])
    (expected,) = torch.autograd.grad((prediction - second[1][:, 0]).square().mean(), weights)
    torch.testing.assert_close(balancer.gradient.double(), expected, rtol=2e-3, atol=1e-6)


def test_the_step_weighs_with_the_lambda_that_has_just_learned() -> None:
    """The meta-gradients of two looks, through torch's own Adam."""
    balancer = AutoLambda(3, lr=0.01)
    reference = nn.Parameter(torch.full((3,), 0.1))
    adam = torch.optim.Adam([reference], lr=0.01)
    for seed in (1, 2):
        look_ahead(balancer, toy(), batch(), batch(seed=seed))
        weights = balancer(Observation(torch.ones(3), 0, 0))
        assert balancer.gradient.any()
        reference.grad = balancer.gradient.clone()
        adam.step()
        torch.testing.assert_close(weights.loss_weights, reference.detach())
    assert weights.penalty == 0
    assert not list(balancer.parameters()), "the run's optimizer has nothing to do with lambda"


def test_each_parameter_has_its_own_learning_rate_in_the_trial_step() -> None:
    """Rates 0.2 and 0.05 on the two coordinates, by the derivative of the same step in closed form."""
    rates = torch.tensor([0.2, 0.05], dtype=torch.float64)

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList(torch.tensor([x], dtype=torch.float64) for x in (0.5, -1.0))

        def losses(self, centres: Tensor) -> Losses:
            def run() -> tuple[Tensor, Tensor]:
                theta = torch.cat(list(self.parts))
                return 0.5 * (theta - centres).square().sum(1), 0.05 * theta.square().sum()

            return run

    network = Parts()
    balancer = AutoLambda(3)
    each = dict(zip(network.parts, rates.tolist(), strict=True))
    balancer.meta_step(network, network.losses(CENTRES), network.losses(CENTRES.flip(1)), each)
    weights = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.5, -1.0], dtype=torch.float64)
    moved = theta - rates * ((weights[:, None] * (theta - CENTRES)).sum(0) + 0.1 * theta)
    (expected,) = torch.autograd.grad(0.5 * (moved - CENTRES.flip(1)).square().sum(), weights)
    torch.testing.assert_close(balancer.gradient.double(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_meta_step_it_refuses() -> None:
    balancer = AutoLambda(3)
    observation = Observation(torch.ones(3), 0, 0)
    with pytest.raises(RuntimeError, match="meta_step"):
        balancer(observation)
    look_ahead(balancer, toy(), batch(), batch(seed=1))
    balancer(observation)
    with pytest.raises(RuntimeError, match="meta_step"):
        balancer(observation)


class Noisy(nn.Module):
    """Dropout and a running mean: state that a look-ahead must not leave behind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    def losses(self, inputs: Tensor) -> Losses:
        return lambda: (self.layers(inputs).square().mean(0), torch.zeros(()))


def test_the_network_and_the_random_state_come_back_and_passes_share_their_dropout() -> None:
    network = Noisy().double()
    balancer = AutoLambda(2)
    inputs = batch(8)[0].double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    balancer.meta_step(network, network.losses(inputs), network.losses(inputs + 1), RATE)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    parameters = list(network.parameters())
    first = network.losses(inputs)()[0]  # the mask of the meta-step's first pass
    trial = torch.autograd.grad(0.1 * first.sum(), parameters, retain_graph=True)
    with torch.no_grad():
        for p, g in zip(parameters, trial, strict=True):
            p.sub_(RATE * g)
    d = torch.autograd.grad(network.losses(inputs + 1)()[0].sum(), parameters)
    network.load_state_dict(before)
    expected = []
    for i in range(2):
        torch.set_rng_state(state)
        own = torch.autograd.grad(network.losses(inputs)()[0][i], parameters)
        expected.append(-RATE * sum((a * b).sum().item() for a, b in zip(d, own, strict=True)))
    assert balancer.gradient.tolist() == pytest.approx(expected, rel=1e-2)


def test_a_loss_ahead_without_a_gradient_teaches_nothing() -> None:
    point = Point()
    balancer = AutoLambda(3)
    nothing: Losses = lambda: (0 * point.theta.sum().expand(3), torch.zeros(()))  # noqa: E731
    balancer.meta_step(point, point.losses(CENTRES), nothing, RATE)
    assert balancer.gradient.tolist() == [0, 0, 0]
