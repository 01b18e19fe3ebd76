"""One step in all its ways: recomputed, accumulated, in half precision, broken, empty, looked ahead."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tests.training.test_trainer import assert_same, final_state, poison_depth, stop_at
from tests.training.tiny import tiny_run
from training.config import RunConfig
from training.data import Batch
from training.distributed import loss_scale, seed_step
from training.model import Network
from training.run_log import read_history
from training.trainer import Trainer, TrainingError
from training.training_step import Held, _or_plain


def gradients(trainer: Trainer, batch: Batch, step: int = 0) -> dict[str, Tensor]:
    trainer.network.train()
    seed_step(trainer.config.seed, step, 0)
    trainer.fabric.backward(trainer._model(Held(batch), 0, step, 1.0).total)
    grads = {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None}
    trainer.network.zero_grad(set_to_none=True)
    return grads


@pytest.mark.parametrize("method", ["lps", "imtl"], ids=["one backward", "a gradient a task"])
def test_recomputed_activations_give_equal_gradients(method: str, tmp_path: Path) -> None:
    settings = ["~balancer.options", f"balancer.name={method}", "model.backbone.drop_path=0.3"]
    kept = Trainer(tiny_run(*settings), tmp_path)
    recomputed = Trainer(tiny_run(*settings, "activation_checkpointing=true"), tmp_path)
    batch = next(kept.feed.batches(0, 0))
    passes = []
    stage = recomputed.network.get_submodule("branches.decoder.stages.1.blocks")
    stage.register_forward_pre_hook(lambda *_: passes.append(1))
    expected, found = gradients(kept, batch), gradients(recomputed, batch)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert len(passes) >= 2, "the stage ran again in the backward pass"


def test_accumulated_steps_are_one_update_on_their_mean_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_run("optim.accumulate=3"), tmp_path)  # 4 steps an epoch: groups of 3 and 1
    alone = Trainer(tiny_run(), tmp_path)
    batches = list(trainer.feed.batches(0, 0))
    each = [gradients(alone, batch, step) for step, batch in enumerate(batches)]
    updates: list[dict[str, Tensor]] = []

    def caught(network: Network) -> tuple[Tensor, Tensor]:
        grads = network.named_parameters()
        updates.append({name: p.grad.clone() for name, p in grads if p.grad is not None})
        network.zero_grad(set_to_none=True)
        trainer._update.pending = 0
        return torch.tensor(False), torch.tensor(True)

    monkeypatch.setattr(trainer._update, "make", caught)
    trainer.network.train()
    for batch in batches:
        trainer._train_step(batch)
    assert len(updates) == 2
    for name, value in updates[0].items():
        mean = torch.stack([grads[name] for grads in each[:3]]).mean(0)
        rounding = 1e-5 * float(mean.abs().max()) + 5e-6
        torch.testing.assert_close(value, mean, rtol=0, atol=rounding, msg=name)
        torch.testing.assert_close(updates[1][name], each[3][name], rtol=1e-5, atol=1e-7, msg=name)


def test_accumulation_and_learned_weights_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["~balancer.options", "balancer.name=uncertainty", "optim.accumulate=3", "checkpoint_every=1"]
    config = tiny_run(*settings)
    whole = Trainer(config, tmp_path / "whole")
    whole.train()
    stop_at(Trainer(config, tmp_path / "cut"), 7, monkeypatch)
    resumed = Trainer(config, tmp_path / "cut")
    assert resumed.resume()
    assert (resumed.epoch, resumed.step_in_epoch) == (1, 3), "saved between two updates"
    resumed.train()
    assert_same(final_state(whole), final_state(resumed))
    learned = whole.engine.state_dict()
    assert any(value.abs().max() > 0 for name, value in learned.items() if name.startswith("balancer."))


def test_half_precision_scales_its_gradients_and_survives_overflow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(tiny_run("precision=fp16"), tmp_path)
    batches = trainer.feed.batches(0, 0)
    trainer.network.train()
    scaler = trainer.fabric.strategy.precision
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**60})
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    with caplog.at_level(logging.WARNING):
        trainer._train_step(next(batches))
    assert "non-finite gradient" in caplog.text
    assert loss_scale(trainer.fabric) == 2.0**59
    assert all(torch.equal(before[name], value) for name, value in trainer.network.named_parameters())
    scaler.load_state_dict(scaler.state_dict() | {"scale": 1024.0})
    trainer._train_step(next(batches))
    assert trainer.bad_steps == 0
    assert any(not torch.equal(before[name], value) for name, value in trainer.network.named_parameters())
    assert trainer.state()["scaler"]["scale"] == 1024.0


def test_half_precision_ends_with_advice_when_no_loss_scale_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_run("precision=fp16", "max_bad_steps=4"), tmp_path)
    trainer.network.train()
    scaler = trainer.fabric.strategy.precision
    scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0})
    trained = next(p for p in trainer.network.parameters() if p.requires_grad)
    trained.register_hook(lambda gradient: gradient * torch.inf)  # type: ignore[no-untyped-call]
    *batches, last = trainer.feed.batches(0, 0)
    for scale, batch in zip((2.0, 1.0, 0.5), batches, strict=True):
        assert loss_scale(trainer.fabric) == scale
        trainer._train_step(batch)
    with pytest.raises(TrainingError, match="4 steps in a row"):
        trainer._train_step(last)


def test_one_broken_step_is_survived_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny_run("epochs=1"), tmp_path)
    poison_depth(trainer, monkeypatch, range(1, 2))
    trainer.train()
    (row,) = read_history(tmp_path / "history.csv")
    assert (row["skipped"], row["empty"], row["labelled/depth"]) == ("1", "0", "3")
    assert float(row["loss/depth"]) > 0
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())


def test_activations_that_overflow_leave_no_trace_in_running_statistics(tmp_path: Path) -> None:
    trainer = Trainer(tiny_run("optim.ema=0.9", "activation_checkpointing=true"), tmp_path)
    encode, steps = trainer.forward_step._encode, trainer.feed.batches(0, 0)
    trainer.network.train()
    trainer._train_step(next(steps))
    before = {name: value.clone() for name, value in trainer.network.named_buffers() if "running" in name}
    trainer.forward_step._encode = lambda images: encode(images) * torch.inf
    trainer._train_step(next(steps))
    assert trainer._tally.skipped == 1
    assert before
    for name, value in before.items():
        assert torch.equal(trainer.network.get_buffer(name), value), name
    assert trainer.average is not None
    assert all(value.isfinite().all() for value in trainer.average.module.state_dict().values())
    trainer.forward_step._encode = encode
    trainer._train_step(next(steps))
    moved = [not torch.equal(trainer.network.get_buffer(name), value) for name, value in before.items()]
    assert all(moved)


def test_a_batch_without_any_label_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = Trainer(tiny_run("optim.weight_decay=0.5"), tmp_path)
    trainer.network.train()
    batch = next(trainer.feed.batches(0, 0))
    for name, missing in {"semseg": 255, "parsing": 255, "saliency": -1}.items():
        batch[name] = torch.full_like(batch[name], missing)
    for name in ("depth", "disparity", "normals"):
        batch[name] = torch.zeros_like(batch[name])
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    with caplog.at_level(logging.WARNING):
        trainer._train_step(batch)
    assert "no image has a label: ['scene" in caplog.text
    assert trainer._tally.empty == 1
    assert all(torch.equal(before[name], value) for name, value in trainer.network.named_parameters())


def test_encoder_and_decoders_are_compiled_with_the_chosen_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[str, str]] = []

    def fake(function: object, backend: str, dynamic: bool) -> object:
        assert not dynamic
        compiled.append((function.__name__, backend))  # type: ignore[attr-defined]
        return function

    monkeypatch.setattr(torch, "compile", fake)
    trainer = Trainer(tiny_run("compile=inductor"), tmp_path)
    assert compiled == [("encode", "inductor"), ("decode", "inductor")]
    trainer._train_step(next(trainer.feed.batches(0, 0)))
    assert trainer.bad_steps == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")  # in PyTorch 2.11
def test_encoder_and_decoders_are_one_graph_each(tmp_path: Path) -> None:
    """No graph breaks: ``fullgraph`` raises at the first one. Gradients are those of the plain way."""
    few = (
        "~model.tasks.saliency",
        "~model.tasks.parsing",
        "~model.tasks.semseg",
        "data.height=32",
        "data.width=32",
    )
    trainer = Trainer(tiny_run(*few), tmp_path)
    network, batch = trainer.network, next(trainer.feed.batches(0, 0))
    expected = gradients(trainer, batch)
    options: dict[str, Any] = {"backend": "eager", "fullgraph": True, "dynamic": False}
    trainer.forward_step._encode = torch.compile(network.encode, **options)
    trainer.forward_step._decode = torch.compile(network.decode, **options)
    found = gradients(trainer, batch)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_what_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    compilations = []

    def failing(*_: object) -> None:
        compilations.append(1)
        raise ValueError("no compiler here")

    def double(values: Tensor) -> Tensor:
        return 2 * values

    run = _or_plain(torch.compile(double, backend=failing), double)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert run(torch.ones(2)).tolist() == [2, 2]
    assert caplog.text.count("cannot be compiled here") == 1
    assert len(compilations) == 1


def test_a_balancer_that_looks_ahead_learns(tmp_path: Path) -> None:
    settings = ("~balancer.options", "balancer.name=auto_lambda", "balancer.options.lr=0.01", "epochs=1")
    trainer = Trainer(tiny_run(*settings, "data.samples_per_epoch=4"), tmp_path)
    trainer.train()
    weights = dict(trainer.engine.balancer.named_buffers())["weights"]
    assert weights.isfinite().all()
    assert (weights != 0.1).any()


def run_with(tmp_path: Path, *overrides: str) -> RunConfig:
    config = tiny_run("epochs=1", "log_every=2", *overrides)
    Trainer(config, tmp_path).train()
    return config


def test_a_run_without_a_terminal_prints_lines_and_tensorboard_gets_points(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_with(tmp_path, "tensorboard=true")
    assert "epoch 0 step 2/4" in caplog.text
    assert "epoch 0 step 3/4" not in caplog.text
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("step/loss/depth")] == [2, 4]
    (row,) = read_history(tmp_path / "history.csv")
    assert events.Scalars("loss/depth")[0].value == pytest.approx(float(row["loss/depth"]), abs=1e-5)
