"""Closed forms of single methods."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.tiny import tiny_run
from training.balancing import Balancer, Observation, TaskWeights, build_balancer
from training.balancing.gcs import GCS
from training.balancing.gradnorm import GradNorm
from training.balancing.imtl_g import impartial
from training.balancing.ol_aux import OLAux
from training.parts import chosen_balancer


def see(losses: list[float], gradients: list[list[float]] | None = None, step: int = 0) -> Observation:
    if gradients is None:
        return Observation(torch.tensor(losses), 0, step)
    g = torch.tensor(gradients)
    return Observation(torch.tensor(losses), 0, step, g @ g.T)


def encoder(balancer: Balancer, gradients: list[list[float]], losses: list[float] | None = None) -> Tensor:
    weights = balancer(see(losses or [1.0] * len(gradients), gradients)).gradient_weights
    assert isinstance(weights, Tensor)
    return weights


def close(found: Tensor | None, expected: list[float], atol: float = 1e-5) -> None:
    assert found is not None
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=atol)


def objective(weights: TaskWeights, losses: list[float]) -> Tensor:
    return (weights.loss_weights * torch.tensor(losses)).sum() + weights.penalty


def slope(balancer: Balancer, observation: Observation) -> Tensor:
    """The gradient of the objective by the method's one parameter."""
    (parameter,) = balancer.parameters()
    (gradient,) = torch.autograd.grad(
        objective(balancer(observation), observation.losses.tolist()), parameter
    )
    return gradient


def set_parameter(balancer: Balancer, values: list[float]) -> None:
    (parameter,) = balancer.parameters()
    with torch.no_grad():
        parameter.copy_(torch.tensor(values))


LOSSES = [0.25, 1.0, 4.0]


def test_uncertainty_is_stationary_where_the_variance_is_the_loss() -> None:
    balancer = build_balancer("uncertainty", 3, {})
    close(balancer(see(LOSSES)).loss_weights, [0.5, 0.5, 0.5])
    set_parameter(balancer, [math.log(loss) for loss in LOSSES])
    close(slope(balancer, see(LOSSES)), [0, 0, 0])
    close(balancer(see(LOSSES)).loss_weights, [2, 0.5, 0.125])


def test_imtl_l_is_twice_uncertainty_at_the_opposite_sign() -> None:
    values = [0.7, -0.2, 1.1]
    impartial_losses, uncertainty = build_balancer("imtl_l", 3, {}), build_balancer("uncertainty", 3, {})
    set_parameter(impartial_losses, values)
    set_parameter(uncertainty, [-value for value in values])
    ours = objective(impartial_losses(see(LOSSES)), LOSSES)
    torch.testing.assert_close(ours, 2 * objective(uncertainty(see(LOSSES)), LOSSES))


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l", "imtl", "ial"])
def test_a_task_without_a_label_leaves_its_uncertainty_alone(name: str) -> None:
    gradient = slope(build_balancer(name, 2, {}), see([0.0, 3.0], [[0.0, 0.0], [1.0, 1.0]]))
    assert gradient[0].item() == 0
    assert gradient[1].item() != 0


def test_dwa_prefers_the_slower_task_after_two_epochs() -> None:
    balancer = build_balancer("dwa", 2, {})
    for losses, expected in (([1.0, 1.0], [1.0, 1.0]), ([0.5, 1.0], [0.8756, 1.1244])):
        balancer.end_epoch(torch.tensor(losses))
        close(balancer(see([1.0, 1.0])).loss_weights, expected, 1e-4)
    assert balancer.first_epoch == 2


def test_dwa_leaves_out_a_task_without_a_loss() -> None:
    balancer = build_balancer("dwa", 3, {})
    balancer.end_epoch(torch.tensor([1.0, math.nan, 1.0]))
    balancer.end_epoch(torch.tensor([0.5, 2.0, 1.0]))
    close(balancer(see([1.0] * 3)).loss_weights, [0.8756, 1, 1.1244], 1e-4)


def test_random_weights_depend_on_seed_and_step_only() -> None:
    draws = [
        build_balancer("random", 4, {"seed": seed})(see([1.0] * 4, step=step)).loss_weights
        for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert torch.equal(draws[0], draws[3])
    assert not torch.allclose(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert all(draw.sum().item() == pytest.approx(4) for draw in draws)


@pytest.mark.parametrize("name", ["random", "pcgrad"])
def test_what_a_method_draws_depends_on_the_seed_of_the_run(name: str) -> None:
    def draws(*settings: str) -> list[list[float]]:
        config = tiny_run("~balancer.options", f"balancer.name={name}", *settings)
        balancer = chosen_balancer(config)
        g = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        seen = torch.cat([g, -g.sum(0, keepdim=True)]).tolist()
        answers = [balancer(see([1.0] * 5, seen, step)) for step in range(8)]
        found = [x.loss_weights if x.gradient_weights is None else x.gradient_weights for x in answers]
        return [weights.tolist() for weights in found]

    assert draws("seed=1") != draws("seed=2")
    assert draws("seed=1", "balancer.options.seed=2") == draws("seed=2")


def test_random_weights_are_the_softmax_of_a_standard_normal() -> None:
    balancer = build_balancer("random", 2, {})
    draws = torch.stack([balancer(see([1.0, 1.0], step=step)).loss_weights for step in range(2000)])
    difference = (draws[:, 0] / draws[:, 1]).log()  # N(0, 2)
    assert abs(difference.mean().item()) < 0.1
    assert difference.var().item() == pytest.approx(2, rel=0.1)


def test_pcgrad_projects_away_the_conflict() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    weights = encoder(build_balancer("pcgrad", 2, {}), gradients.tolist())
    close(weights @ gradients, [0.5, 1.5])


def test_pcgrad_draws_its_order_from_seed_and_step_and_leaves_the_global_generator_alone() -> None:
    balancer = build_balancer("pcgrad", 4, {})
    g = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    g[3] = -g[:3].sum(0)
    before = torch.get_rng_state()
    answers = {
        tuple(balancer(see([1.0] * 4, g.tolist(), step)).gradient_weights.tolist()) for step in range(12)
    }
    again = {
        tuple(balancer(see([1.0] * 4, g.tolist(), step)).gradient_weights.tolist()) for step in range(12)
    }
    assert torch.equal(torch.get_rng_state(), before)
    assert answers == again
    assert len(answers) > 1


def test_mgda_finds_the_shortest_combination() -> None:
    close(encoder(build_balancer("mgda", 2, {}), [[1.0, 0.0], [0.0, 2.0]]), [1.6, 0.4])  # 2 (.8, .2)


def test_mgda_makes_no_task_it_uses_better_than_another() -> None:
    """At the minimum <g_i, d> = |d|^2 for every task of positive weight, and above for the others."""
    for seed in range(8):
        g = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        g *= torch.tensor([[1.0], [20.0], [0.05], [3.0], [300.0]])
        weights = encoder(build_balancer("mgda", 5, {}), g.tolist()) / 5
        direction = weights @ g
        gains = g @ direction / direction.square().sum()
        used = weights * g.norm(dim=1) > 1e-4 * direction.norm()
        assert weights.min() >= 0
        assert used.sum() > 1
        torch.testing.assert_close(gains[used], torch.ones_like(gains[used]), rtol=5e-3, atol=0)
        assert gains.min() > 0.995


@pytest.mark.parametrize("gradients", [[[3.0, 0.0], [-1.0, 0.2]], [[1e-3, 2e-3], [50.0, 3.0]]])
def test_imtl_g_of_two_tasks_is_inverse_norm_weighting(gradients: list[list[float]]) -> None:
    inverse = 1 / torch.tensor(gradients).norm(dim=1)
    expected = 2 * inverse / inverse.sum()
    close(encoder(build_balancer("imtl_g", 2, {}), gradients), expected.tolist(), 1e-4)


def test_imtl_g_solves_k_a_equals_n() -> None:
    g = torch.randn(4, 9, generator=torch.Generator().manual_seed(3)) * torch.tensor(
        [[1.0], [0.1], [30], [2]]
    )
    weights = impartial(g @ g.T)
    projections = (g / g.norm(dim=1, keepdim=True)) @ (weights @ g)
    torch.testing.assert_close(projections, projections.mean().expand(4), rtol=1e-4, atol=1e-6)
    assert weights.sum().item() == pytest.approx(4, rel=1e-5)


def test_imtl_g_of_opposed_gradients_rests() -> None:
    close(impartial(torch.tensor([[1.0, -2.0], [-2.0, 4.0]])), [0, 0])


def test_imtl_balances_the_gradients_of_the_scaled_losses() -> None:
    balancer = build_balancer("imtl", 2, {})
    set_parameter(balancer, [math.log(4), 0.0])
    answer = balancer(see([1.0, 1.0], [[1.0, 0.0], [0.0, 8.0]]))
    close(answer.loss_weights, [4, 1])
    close(answer.gradient_weights, [4 * 4 / 3, 2 / 3])  # e^s g: norms 4 and 8; a = 2 (2/3, 1/3), times e^s


def test_cagrad_without_radius_is_the_mean() -> None:
    close(encoder(build_balancer("cagrad", 2, {"c": 0.0}), [[1.0, 0.0], [-3.0, 1.0]]), [1, 1])


def test_cagrad_stays_within_its_radius_and_helps_the_worst_task() -> None:
    g = torch.tensor([[1.0, 0.0], [-3.0, 1.0]])
    direction = 1.4 * encoder(build_balancer("cagrad", 2, {}), g.tolist()) @ g / 2
    mean = g.mean(0)
    assert (direction - mean).norm().item() == pytest.approx(0.4 * mean.norm().item(), rel=1e-3)
    assert (g @ direction).min() > (g @ mean).min()


def test_cagrad_goes_on_beside_a_task_with_next_to_no_gradient() -> None:
    weights = encoder(build_balancer("cagrad", 3, {}), [[1.0, 0.0, 0.0], [0.0, 1e-6, 0.0], [0.0, 0.5, 1.0]])
    close(weights, [1 / 1.4] * 3)


def test_aligned_mtl_brings_orthogonal_gradients_to_the_shortest() -> None:
    close(encoder(build_balancer("aligned_mtl", 2, {}), [[1.0, 0.0], [0.0, 4.0]]), [1, 0.25])


def test_upgrad_conflicts_with_no_task() -> None:
    g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    direction = encoder(build_balancer("upgrad", 2, {}), g.tolist()) @ g
    close(direction, [0.5, 1.5], 2e-3)  # the projections of both, as PCGrad's; torchjd regularises by 1e-4
    assert (g @ direction).min() > -1e-3


@pytest.mark.parametrize("ratio", [100.0, 1000.0])
def test_upgrad_spares_a_task_of_short_gradient(ratio: float) -> None:
    g = torch.tensor([[ratio, 0.0], [-1.0, 1.0]])
    direction = encoder(build_balancer("upgrad", 2, {}), g.tolist()) @ g
    expected = torch.tensor([0.5 * ratio, 0.5 * ratio + 1])  # (1, 1) ratio / 2 + (0, 1), as PCGrad's
    torch.testing.assert_close(direction, expected, rtol=1e-3, atol=0)


def test_gradient_norm_scaling_makes_all_scaled_norms_equal() -> None:
    balancer = build_balancer("gradient_norm_scaling", 3, {})
    gradients = [[3.0, 0.0], [0.0, 0.1], [20.0, 20.0]]
    for _ in range(3):
        weights = balancer(see([1.0] * 3, gradients)).loss_weights
    scaled = weights * torch.tensor(gradients).norm(dim=1)
    torch.testing.assert_close(scaled, scaled.mean().expand(3))
    assert weights.sum().item() == pytest.approx(3)


def test_gradient_norm_scaling_averages_freezes_and_has_a_power() -> None:
    averaging = build_balancer("gradient_norm_scaling", 2, {"beta": 0.5})
    averaging(see([1.0, 1.0], [[2.0], [1.0]]))
    close(
        averaging(see([1.0, 1.0], [[5.0], [1.0]])).loss_weights, [0.4, 1.6]
    )  # mean norm (.25 * 2 + .5 * 5) / .75 = 4
    frozen = build_balancer("gradient_norm_scaling", 2, {"freeze_after": 1})
    first = frozen(see([1.0, 1.0], [[3.0], [1.0]], step=0)).loss_weights
    assert torch.equal(frozen(see([1.0, 1.0], [[1.0], [9.0]], step=1)).loss_weights, first)
    root = build_balancer("gradient_norm_scaling", 2, {"power": 0.5})
    close(root(see([1.0, 1.0], [[9.0], [1.0]])).loss_weights, [0.5, 1.5])


def test_gradnorm_pulls_scaled_norms_to_the_common_rate() -> None:
    balancer = GradNorm(2, alpha=1.0)
    balancer(see([1.0, 1.0], [[1.0], [1.0]]))
    answer = balancer(see([0.5, 1.5], [[3.0], [1.0]]))
    close(answer.loss_weights, [1, 1])
    assert not answer.loss_weights.requires_grad
    close(torch.as_tensor(answer.penalty), 4.0)  # type: ignore[arg-type]  # |3 - 2 * .5| + |1 - 2 * 1.5|
    gradient = slope(balancer, see([0.5, 1.5], [[3.0], [1.0]]))
    close(gradient, [2, -2])  # dw_1 / dv = w_1 w_2 / T (1, -1) = (.5, -.5): signs (+, -) times norms (3, 1)
    assert balancer.lr == 0.025


def test_gcs_drops_opposed_auxiliary_tasks() -> None:
    gradients = [[1.0, 0.0], [3.0, 4.0], [-1.0, 1.0], [0.0, 2.0]]
    close(encoder(GCS(4), gradients), [1, 1, 0, 1])
    close(encoder(GCS(4, soft=True), gradients), [1, 0.6, 0, 0])
    close(encoder(GCS(4, primary=2), gradients), [0, 1, 1, 1])


def test_ol_aux_adds_up_inner_products_over_its_interval() -> None:
    balancer = OLAux(["a", "b", "c"], primary="b", beta=0.1, interval=2)
    close(encoder(balancer, [[1.0, 0.0], [2.0, 1.0], [-9.0, 0.0]]), [1, 1, 1])
    close(
        encoder(balancer, [[2.0, 0.0], [2.0, 0.0], [-9.0, 0.0]]), [1.6, 1, 0]
    )  # 1 + .1 (2 + 4); 1 - 3.6 at 0
    close(encoder(balancer, [[2.0, 0.0], [2.0, 0.0], [5.0, 0.0]]), [1.6, 1, 0])


def test_db_mtl_descends_log_losses_with_gradients_of_the_largest_norm() -> None:
    balancer = build_balancer("db_mtl", 2, {})
    losses, gradients = [0.5, 4.0], [[1.0, 0.0], [0.0, 4.0]]
    for _ in range(2):
        answer = balancer(see(losses, gradients))
    close(answer.loss_weights, [2, 0.25])
    close(answer.gradient_weights, [2, 0.5])  # log-loss norms 2 and 1
    norms = answer.gradient_weights * torch.tensor(gradients).norm(dim=1)
    close(norms, [2, 2])


@pytest.mark.parametrize("primary", ["semseg", "depth", "normals"])
@pytest.mark.parametrize("map_", ["relu", "softplus", "exp"])
def test_ial_gives_auxiliary_gradients_a_share_of_the_primary_norm(primary: str, map_: str) -> None:
    names = ["semseg", "depth", "normals"]
    balancer = build_balancer("ial", names, {"primary": primary, "map": map_})
    sigma = np.array([0.4, 0.9, 3.0])
    set_parameter(balancer, (2 * np.log(sigma)).tolist())
    gradients = torch.tensor([[3.0, 4.0], [0.0, 0.1], [-7.0, 1.0]])
    answer = balancer(see(LOSSES, gradients.tolist()))
    close(answer.loss_weights, (0.5 / sigma**2).tolist())
    g = {"relu": lambda x: max(x, 0), "softplus": lambda x: math.log1p(math.exp(x)), "exp": math.exp}[map_]
    norms, p = gradients.norm(dim=1), names.index(primary)
    expected = [min(1, g(1 - s)) * norms[p].item() for s in sigma]
    expected[p] = norms[p].item()
    close(answer.gradient_weights * norms, expected)
    assert answer.gradient_weights[p].item() == 1
    assert not answer.gradient_weights.requires_grad


def test_ial_survives_tasks_without_a_gradient() -> None:
    for primary in (0, 1):
        balancer = build_balancer("ial", 2, {"primary": primary, "map": "exp"})
        weights = encoder(balancer, [[0.0, 0.0], [1.0, 2.0]], [0.0, 1.0])
        assert weights.isfinite().all()
        assert weights[primary].item() == 1
        assert weights[1 - primary].item() == 0


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("ial", {"primary": "edges"}, "no task 'edges'; there are 3: semseg, depth, normals"),
        ("gcs", {"primary": 3}, "no task 3"),
        ("ol_aux", {"primary": -1}, "no task -1"),
        ("ol_aux", {"interval": 0}, "interval"),
        ("ial", {"map": "tanh"}, "map: Input should be 'relu', 'softplus' or 'exp', got 'tanh'"),
        ("auto_lambda", {"primary": []}, "at least one task"),
        ("auto_lambda", {"primary": ["depth", "edges"]}, "no task 'edges'"),
        ("auto_lambda", {"init": 0.0}, "init must be positive and lr not negative, got 0.0"),
        ("auto_lambda", {"lr": -1e-4}, "init must be positive and lr not negative"),
        ("dwa", {"temperature": 0}, "temperature"),
        ("equal", {"weights": [1, 2, 3]}, "'equal' has no option 'weights'; it has none"),
        ("gradient_norm_scaling", {"freeze_after": 0}, "freeze_after must be at least 1 step, got 0"),
        ("gradient_norm_scaling", {"power": -1.0}, "power must not be negative"),
        ("gradnorm", {"alpha": -0.5}, "alpha must not be negative"),
        ("gradnorm", {"lr": -0.025}, "lr must not be negative"),
        ("uncertainty", {"lr": -0.1}, "lr must not be negative, got -0.1"),
        ("imtl_l", {"lr": -0.1}, "lr must not be negative"),
        ("imtl", {"lr": -0.1}, "lr must not be negative"),
        ("ial", {"lr": -0.1}, "lr must not be negative"),
        ("ol_aux", {"beta": -1.0}, "beta must be positive"),
        ("lps", {"kappa": 0.0}, "kappa must be positive, got 0.0"),
        ("lps", {"kappa": -1.0}, "kappa must be positive"),
        ("lps", {"floor": 1.0}, r"floor must be in \[0, 1\), got 1.0"),
        ("lps", {"floor": -2.0}, "floor must be in"),
        ("gradient_norm_scaling", {"beta": 1.0}, "beta"),
        ("db_mtl", {"beta": -0.1}, "norm_decay"),
        ("db_mtl", {"beta": 0.5, "norm_decay": 0.3}, "beta is the old name of norm_decay"),
        ("cagrad", {"c": -1.0}, "non-negative"),
        ("mgda", {"c": 1.0}, "balancer 'mgda' has no option 'c'; it has none"),
        ("lps", {"kapa": 1.0}, "no option 'kapa'; it has kappa, history, floor, projection, prioritise"),
        ("lps", {"kappa": "2,5"}, "kappa: Input should be a valid number, got '2,5'"),
        ("lps", {"kappa": math.nan}, "kappa: Input should be a finite number"),
        ("lps", {"prioritise": "no"}, "prioritise: Input should be a valid boolean"),
        ("gradnorm", {"alpha": "high"}, "alpha: Input should be a valid number"),
        ("ial", {"primary": ["depth"]}, "primary: .*got ..depth.."),
        ("manual", {"weights": [1, 2, "a"]}, "weights: Input should be a valid number"),
        ("manual", {"weights": [1, 2, -1]}, "must not be negative"),
        ("manual", {"weights": [0, 0, 0]}, "must not all be 0"),
        ("random", {"seed": -1}, "seed must not be negative"),
        ("pcgrad", {"seed": -1}, "seed must not be negative"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_balancer(name, ["semseg", "depth", "normals"], options)


def test_a_method_without_its_gramian_says_so() -> None:
    with pytest.raises(ValueError, match="needs the Gramian"):
        build_balancer("imtl_g", 2, {})(see([1.0, 1.0]))
