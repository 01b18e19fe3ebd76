"""A run: resumable to the bit, honest about labels, hard to lose."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.training.tiny import tiny_run
from training import checkpoint
from training.balancing import StepResult, TaskLosses
from training.checkpoint import CheckpointError
from training.config import ConfigError, RunConfig
from training.data import Batch, DataError
from training.model import MTCP, Predictions
from training.objective import Objective
from training.run_log import read_history
from training.trainer import LAST, Trainer, TrainingError


def final_state(trainer: Trainer) -> dict[str, Any]:
    return {key: value for key, value in trainer.state().items() if key != "config"}


def assert_same(first: Any, second: Any, where: str = "state") -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(second, first, rtol=0, atol=0, equal_nan=True, msg=where)
    else:
        assert first == second, where


class Stopped(Exception):  # noqa: N818  # the test's stand-in for a power cut
    pass


def stop_at(trainer: Trainer, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run die in ``step``, after what it saved before."""
    original = trainer._train_step

    def dying(batch: Batch) -> StepResult:
        if trainer.step == step:
            raise Stopped
        return original(batch)

    monkeypatch.setattr(trainer, "_train_step", dying)
    with pytest.raises(Stopped):
        trainer.train()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run that nothing interrupted."""
    config = tiny_run("checkpoint_every=1", "optim.ema=0.9", "model.backbone.drop_path=0.2")
    trainer = Trainer(config, tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


@pytest.mark.parametrize("dies_at", [2, 5], ids=["within the first epoch", "within the second epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    whole: Trainer, dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(Trainer(whole.config, tmp_path), dies_at, monkeypatch)
    resumed = Trainer(whole.config, tmp_path)
    assert resumed.resume()
    assert resumed.step == dies_at
    resumed.train()
    assert_same(final_state(whole), final_state(resumed))
    histories = [read_history(trainer.run / "history.csv") for trainer in (whole, resumed)]
    for one, other in zip(*histories, strict=True):
        assert one.pop("seconds") is not None
        assert other.pop("seconds") is not None
        assert one == other


def test_a_run_that_dies_validating_its_last_epoch_still_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run("epochs=1", "data.samples_per_epoch=2")

    def killed() -> None:
        raise Stopped

    first = Trainer(config, tmp_path)
    monkeypatch.setattr(first, "validate", killed)
    with pytest.raises(Stopped):
        first.train()
    second = Trainer(config, tmp_path)
    assert second.resume()
    assert second.train()
    (row,) = read_history(tmp_path / "history.csv")
    assert row["epoch"] == "0"
    assert 0 <= float(row["semseg/mIoU"]) <= 1
    third = Trainer(config, tmp_path)
    third.resume()
    monkeypatch.setattr(third, "validate", killed)
    assert third.train(), "what is written down is not validated again"


def test_training_on_scenes_lowers_the_losses(tmp_path: Path) -> None:
    Trainer(tiny_run("epochs=3", "data.samples_per_epoch=24"), tmp_path).train()
    rows = read_history(tmp_path / "history.csv")
    assert len(rows) == 3
    for task in ("semseg", "normals", "depth"):
        assert float(rows[-1][f"loss/{task}"]) < float(rows[0][f"loss/{task}"])
    assert "semseg/mIoU" in rows[-1]


def test_wrong_balancer_options_are_told_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.validation_sources", None)
    with pytest.raises(ConfigError, match=r"balancer: .*kapa"):
        Trainer(tiny_run("balancer.options.kapa=1"), tmp_path)


def test_another_configuration_does_not_resume(tmp_path: Path) -> None:
    Trainer(tiny_run(), tmp_path).save()
    with pytest.raises(CheckpointError, match="seed: 0 -> 7"):
        Trainer(tiny_run("seed=7"), tmp_path).resume()


def test_an_unlabelled_task_teaches_nothing(tmp_path: Path) -> None:
    trainer = Trainer(tiny_run("loss.lambda_cos=0"), tmp_path)
    batch = next(trainer.feed.batches(0, 0))
    batch["parsing"] = torch.full_like(batch["parsing"], 255)
    trainer.network.train()
    terms = trainer.objective(trainer.network(batch["image"]), batch)
    assert terms.supervised.tolist() == [True, True, True, True, False]
    assert terms.losses[-1].item() == terms.aux_losses[-1].item() == 0
    torch.stack([*terms.losses, *terms.aux_losses, terms.coherence_loss]).sum().backward()  # type: ignore[no-untyped-call]
    assert isinstance(trainer.network, MTCP)
    head, own = trainer.network.branches.head, trainer.network.tasks[-1].channels
    for parameter, rows in ((head.weight, own), (head.bias, own), (head.hidden[1].weight, 16)):
        assert isinstance(parameter.grad, torch.Tensor)
        assert not parameter.grad[-rows:].any()
        assert parameter.grad[:-rows].any()


def poison_depth(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, steps: range = range(1000)) -> None:
    """Make the depth loss NaN in ``steps``."""
    objective = Objective.__call__

    def broken(self: Objective, predictions: Predictions, batch: Batch) -> TaskLosses:
        terms = objective(self, predictions, batch)
        if trainer.step not in steps:
            return terms
        losses = [loss * torch.nan if index == 1 else loss for index, loss in enumerate(terms.losses)]
        return replace(terms, losses=losses)

    monkeypatch.setattr(Objective, "__call__", broken)


def test_non_finite_steps_are_skipped_named_and_limited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny_run("max_bad_steps=2", "data.samples_per_epoch=4"), tmp_path)
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    poison_depth(trainer, monkeypatch)
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingError, match="2 steps in a row"):
        trainer.train()
    assert "depth" in caplog.text
    assert "images ['scene" in caplog.text
    assert all(torch.equal(before[name], value) for name, value in trainer.network.named_parameters())


def test_a_broken_label_stops_before_the_first_step(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for folder in ("images", "semseg", "splits"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(root / "images" / "a.jpg")
    (root / "semseg" / "a.png").write_bytes(b"not a picture")
    (root / "splits" / "train.txt").write_text("a\n")
    source = {"kind": "folder", "root": str(root), "tasks": {"semseg": "voc"}}
    plain = tiny_run().model_dump(mode="json")
    plain["data"]["train"] = [source]
    with pytest.raises(DataError, match=r"semseg/a\.png"):
        Trainer(RunConfig.model_validate(plain), tmp_path / "run")
    assert not (tmp_path / "run" / LAST).exists()


def test_schedules_decay_by_step_or_by_epoch(tmp_path: Path) -> None:
    by_epoch = Trainer(tiny_run("optim.per_step=false", "optim.warmup_steps=0"), tmp_path)
    assert [by_epoch.schedule.rate(step) for step in range(4)] == [1.0] * 4
    assert by_epoch.schedule.rate(4) == pytest.approx(0.5**0.9)
    by_step = Trainer(tiny_run("optim.warmup_steps=2", "optim.power=1"), tmp_path)
    assert [by_step.schedule.rate(step) for step in range(3)] == pytest.approx([0.5, 0.875, 0.75])


def test_resuming_removes_what_a_killed_process_left_of_a_checkpoint(tmp_path: Path) -> None:
    left = tmp_path / f".{LAST}-0a1b2c3d.tmp"
    left.write_bytes(b"half of one")
    trainer = Trainer(tiny_run(), tmp_path)
    assert left.exists()
    assert not trainer.resume()
    assert not left.exists()
    trainer.save()
    left.write_bytes(b"half of one")
    assert trainer.resume()
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_which_weights_are_better_is_forgotten_when_the_run_goes_on(tmp_path: Path) -> None:
    assert Trainer(tiny_run("epochs=1", "optim.ema=0.5"), tmp_path).train()
    again = Trainer(tiny_run("epochs=1", "optim.ema=0.5"), tmp_path)
    assert again.resume()
    assert again.better in ("average", "raw")
    longer = Trainer(tiny_run("epochs=2", "optim.ema=0.5"), tmp_path)
    assert longer.resume()
    assert not longer.train(until=0.0)
    with pytest.raises(CheckpointError, match="the run has not ended"):
        checkpoint.strip(tmp_path / LAST, tmp_path / "slim.pt", weights="better")
    assert longer.train()
    checkpoint.strip(tmp_path / LAST, tmp_path / "slim.pt", weights="better")


def test_stripped_checkpoints_hold_the_weights_that_are_asked_for(tmp_path: Path) -> None:
    trainer = Trainer(tiny_run("epochs=1", "optim.ema=0.5"), tmp_path)
    trainer.save()
    with pytest.raises(CheckpointError, match="choose average or raw"):
        checkpoint.strip(tmp_path / LAST, tmp_path / "slim.pt", weights="better")
    trainer.train()
    assert trainer.average is not None
    averaged, raw = trainer.average.module.state_dict(), trainer.network.state_dict()
    assert trainer.better in ("average", "raw")
    chosen = averaged if trainer.better == "average" else raw
    for weights, expected in (("raw", raw), ("better", chosen)):
        checkpoint.strip(tmp_path / LAST, tmp_path / f"{weights}.pt", weights=weights)  # type: ignore[arg-type]
        for name, value in checkpoint.load_network(tmp_path / f"{weights}.pt")[0].state_dict().items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=f"{weights} {name}")
    checkpoint.strip(tmp_path / LAST, tmp_path / "slim.pt")
    assert (tmp_path / "slim.pt").stat().st_size < (tmp_path / LAST).stat().st_size / 4
    network, config = checkpoint.load_network(tmp_path / "slim.pt")
    assert config == trainer.config
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-3, atol=1e-3)
