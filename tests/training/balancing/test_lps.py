import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.tiny import tiny_run
from training.balancing import Balancer, Observation, TaskWeights, build_balancer
from training.balancing.lps import LPS, relative_progress, spread
from training.distributed import launch
from training.parts import build_engine


def see(losses: list[float]) -> Observation:
    return Observation(torch.tensor(losses), epoch=0, step=0)


def feed(balancer: Balancer, *epochs: list[float]) -> torch.Tensor:
    for losses in epochs:
        balancer.end_epoch(torch.tensor(losses))
    weights: TaskWeights = balancer(see(list(epochs[-1])))
    return weights.loss_weights


TWO_TASKS = [[1.0, 2.0], [0.8, 1.9], [0.6, 1.7], [0.5, 1.6]]


def test_weights_of_a_slow_and_a_fast_task() -> None:
    progress = relative_progress(torch.tensor([0.5, 1.6]), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(progress, torch.tensor([0.7143, 1.1429]), atol=1e-4, rtol=0)
    torch.testing.assert_close(spread(progress, 2.5, 0.05), torch.tensor([0.3929, 1.4643]), atol=1e-4, rtol=0)
    heads = feed(LPS(2), *TWO_TASKS)
    torch.testing.assert_close(heads, torch.tensor([0.3314, 0.9019]), atol=1e-4, rtol=0)


def test_the_guard_lowers_kappa_and_keeps_mean_and_order() -> None:
    progress = relative_progress(torch.tensor([0.88, 0.38, 0.205]), torch.tensor([1.5, 0.6, 0.24]))
    torch.testing.assert_close(progress, torch.tensor([0.937, 1.012, 1.364]), atol=1e-3, rtol=0)
    unguarded = progress.mean() + 7.5 * (progress - progress.mean())
    torch.testing.assert_close(unguarded, torch.tensor([-0.150, 0.409, 3.054]), atol=2e-2, rtol=0)
    guarded = spread(progress, 7.5, 0.05)
    kappa = (guarded[2] - guarded[0]) / (progress[2] - progress[0])
    assert kappa.item() == pytest.approx(6.3, abs=0.05)
    assert guarded.min().item() == pytest.approx(0.05, abs=1e-5)


def test_equal_decay_and_kappa_one_leave_weights_alone() -> None:
    decaying = [[2.0 * 0.9**k, 0.5 * 0.9**k] for k in range(5)]
    assert feed(LPS(2, kappa=7.5, projection="none"), *decaying).tolist() == pytest.approx([1, 1], abs=1e-5)
    plain = feed(LPS(2, kappa=1.0, projection="none"), *TWO_TASKS)
    torch.testing.assert_close(plain, torch.tensor([0.7143, 1.1429]), atol=1e-4, rtol=0)


def test_the_first_epochs_use_what_history_there_is() -> None:
    lps = LPS(2, projection="none", kappa=1.0)
    assert lps(see([1.0, 1.0])).loss_weights.tolist() == [1, 1]
    assert feed(lps, [1.0, 2.0]).tolist() == [1, 1]
    torch.testing.assert_close(
        feed(lps, [0.5, 2.0]), relative_progress(torch.tensor([0.5, 2.0]), torch.tensor([1.0, 2.0]))
    )


def test_history_reaches_back_h_epochs_only() -> None:
    recent = feed(LPS(2, projection="none"), *TWO_TASKS)
    with_past = feed(LPS(2, projection="none"), [50.0, 0.1], [40.0, 9.0], *TWO_TASKS)
    torch.testing.assert_close(recent, with_past)


def test_early_epochs_are_no_evidence_in_the_warm_up() -> None:
    early = ([50.0, 0.1], [40.0, 9.0])
    balancer = LPS(2, projection="none", warmup_epochs=3)
    assert feed(balancer, *early, TWO_TASKS[0]).tolist() == [1, 1]
    rest = feed(balancer, *TWO_TASKS[1:])
    torch.testing.assert_close(rest, feed(LPS(2, projection="none"), *TWO_TASKS))
    with pytest.raises(ValueError, match="warmup_epochs"):
        LPS(2, warmup_epochs=-1)


@pytest.mark.parametrize("warmup", [0, 1, 2, 4])
def test_what_a_method_has_no_use_for_is_told(warmup: int, caplog: pytest.LogCaptureFixture) -> None:
    balancer, epoch = LPS(2, warmup_epochs=warmup), 0
    start = balancer(see([1.0, 1.0])).loss_weights
    while torch.equal(start, balancer(see([1.0, 1.0])).loss_weights):
        balancer.end_epoch(torch.tensor([0.9**epoch, 0.8**epoch]))
        epoch += 1
    assert balancer.first_epoch == epoch
    for epochs in (epoch, epoch + 1):
        caplog.clear()
        config = tiny_run(f"balancer.options.warmup_epochs={warmup}", f"epochs={epochs}")
        build_engine(config, torch.Tensor.clone, launch(config))
        assert (f"lps keeps its first weights for {epoch} epochs" in caplog.text) == (epochs == epoch)
    config = tiny_run("balancer.options.prioritise=false", "epochs=1")
    build_engine(config, torch.Tensor.clone, launch(config))
    assert not caplog.text
    config = tiny_run("balancer.options.prioritise=false", "balancer.update_interval=4")
    build_engine(config, torch.Tensor.clone, launch(config))
    assert "update_interval: not used, lps looks at no task gradients" in caplog.text


def test_log_loss_weights_have_the_gradient_of_the_log() -> None:
    losses = torch.tensor([0.3, 4.0], requires_grad=True)
    torch.log1p(losses).sum().backward()  # type: ignore[no-untyped-call]
    balancer = LPS(2, projection="log_loss", prioritise=False)
    feed(balancer, [1.0, 1.0], [0.5, 1.0])
    torch.testing.assert_close(balancer(see([0.3, 4.0])).loss_weights, losses.grad)


def test_a_task_without_labels_keeps_weight_one_and_disturbs_no_other() -> None:
    nan = float("nan")
    with_gap = feed(LPS(3, projection="none"), *([a, nan, b] for a, b in TWO_TASKS))
    two = feed(LPS(2, projection="none"), *TWO_TASKS)
    assert with_gap[1].item() == 1
    torch.testing.assert_close(with_gap[[0, 2]], two)


def test_a_loss_that_was_zero_does_not_undercut_the_floor() -> None:
    heads = feed(LPS(3, kappa=1.0, projection="none"), [0.0, 0.0, 1.0], [0.0, 0.0, 0.0])
    assert heads.min().item() == pytest.approx(0.05)


@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=2, max_size=6),
    st.floats(0.1, 100),
)
def test_weights_are_finite_positive_and_equivariant(epochs: list[list[float]], kappa: float) -> None:
    heads = feed(LPS(3, kappa=kappa), *epochs)
    assert heads.isfinite().all()
    assert (heads > 0).all()
    swapped = feed(LPS(3, kappa=kappa), *(epoch[::-1] for epoch in epochs))
    torch.testing.assert_close(swapped.flip(0), heads, rtol=1e-3, atol=1e-3)


def test_a_restored_balancer_goes_on_identically() -> None:
    first = LPS(2)
    feed(first, *TWO_TASKS[:2])
    second = LPS(2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(feed(first, *TWO_TASKS[2:]), feed(second, *TWO_TASKS[2:]))


def test_balancers_are_built_by_name() -> None:
    assert build_balancer("equal", 2, {})(see([3.0, 4.0])).loss_weights.tolist() == [1, 1]
    manual = build_balancer("manual", 2, {"weights": [1.0, 10.0]})
    assert manual(see([3.0, 4.0])).loss_weights.tolist() == [1, 10]
    with pytest.raises(ValueError, match=r"unknown balancer 'magic'; known: aligned_mtl, .*upgrad"):
        build_balancer("magic", 2, {})
    with pytest.raises(ValueError, match="kapa"):
        build_balancer("lps", 2, {"kapa": 1})
    with pytest.raises(ValueError, match="2 weights"):
        build_balancer("manual", 2, {"weights": [1.0]})
    with pytest.raises(ValueError, match="projection"):
        build_balancer("lps", 2, {"projection": "sqrt"})
    with pytest.raises(ValueError, match="history"):
        build_balancer("lps", 2, {"history": 0})
