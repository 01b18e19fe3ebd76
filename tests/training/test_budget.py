"""Runs with a budget of minutes, by a clock that ticks whenever it is looked at."""

import logging
from pathlib import Path

import pytest

from tests.training.test_trainer import Stopped, assert_same, final_state
from tests.training.tiny import tiny_run
from training import checkpoint, trainer
from training.config import RunConfig
from training.data import Batch
from training.evaluation import Validation
from training.metrics import Report
from training.run_log import read_history
from training.schedule import Clock
from training.trainer import LAST, Trainer, TrainingError

TICK = 8.0


@pytest.fixture(autouse=True)
def _ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock takes `TICK` s; validation is said to take 40 s."""

    class Ticking(Clock):
        def __init__(self, **_: object) -> None:
            self.looks = 0
            super().__init__(self.tick)

        def tick(self) -> float:
            self.looks += 1
            return TICK * self.looks

    monkeypatch.setattr(trainer, "Clock", Ticking)
    monkeypatch.setattr(Validation, "seconds", lambda self, networks: 40.0)


def timed(*overrides: str) -> RunConfig:
    few = ("~model.tasks.saliency", "~model.tasks.parsing", "data.height=32", "data.width=48")
    return tiny_run("minutes=8", "epochs=4", "optim.ema=0.9", *few, *overrides)


def test_a_run_ends_validates_and_saves_within_its_budget(tmp_path: Path) -> None:
    made = Trainer(
        timed("data.progressive=[{epoch: 0, height: 32, width: 32}, {epoch: 2, height: 32, width: 48}]"),
        tmp_path,
    )
    sizes = []
    step = made._train_step

    def watched(batch: Batch) -> object:
        sizes.append(tuple(batch["image"].shape[-2:]))
        return step(batch)

    made._train_step = watched  # type: ignore[method-assign, assignment]
    assert made.train()
    assert made.clock.spent() <= 8 * 60
    assert made.schedule.progress == 1
    rows = read_history(tmp_path / "history.csv")
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(len(rows))]
    assert [bool(row.get("semseg/mIoU")) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["raw/semseg/mIoU"]
    assert made.better in ("average", "raw")
    assert sizes[0] == (32, 32)
    assert sizes[-1] == (32, 48)
    assert sizes == sorted(sizes)
    assert checkpoint.load(tmp_path / LAST)["finished"]


def test_a_run_that_ended_before_its_report_scores_as_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validation, "seconds", lambda self, networks: 400.0)
    first = Trainer(timed(), tmp_path)

    def killed() -> dict[str, Report]:
        raise KeyboardInterrupt

    monkeypatch.setattr(first, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert first.scoring.every > 1
    rows = read_history(tmp_path / "history.csv")
    again = Trainer(timed(), tmp_path)
    assert again.resume()
    assert again.train()
    assert again.scoring.every == first.scoring.every
    assert len(read_history(tmp_path / "history.csv")) == len(rows) + 1
    more = Trainer(timed("minutes=12"), tmp_path)
    more.resume()
    assert more.scoring.every == 1  # until it has planned anew


def test_a_finished_run_stays_finished_and_can_be_given_more(tmp_path: Path) -> None:
    first = Trainer(timed(), tmp_path)
    first.train()
    again = Trainer(timed(), tmp_path)
    assert again.resume()
    assert again.train()
    assert again.step == first.step
    assert_same(final_state(first), final_state(again))
    more = Trainer(timed("minutes=12"), tmp_path)
    assert more.resume()
    assert 0 < more.schedule.progress < 1
    more.train()
    assert more.step > first.step
    assert more.clock.spent() <= 12 * 60


def test_a_run_that_was_cut_uses_the_time_that_is_left(tmp_path: Path) -> None:
    first = Trainer(timed(), tmp_path)
    step = first._train_step

    def dying(batch: Batch) -> object:
        if first.step == 20:
            raise Stopped
        return step(batch)

    first._train_step = dying  # type: ignore[method-assign, assignment]
    with pytest.raises(Stopped):
        first.train()
    resumed = Trainer(timed(), tmp_path)
    assert resumed.resume()
    before = resumed.clock.spent()
    assert before > 100, "what was spent is remembered"
    resumed.train()
    assert before < resumed.clock.spent() <= 8 * 60
    assert resumed.finished


def test_a_validation_that_does_not_fit_scores_fewer_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Validation, "seconds", lambda self, networks: 300.0)
    made = Trainer(timed("data.val.0.count=4"), tmp_path)
    with caplog.at_level(logging.WARNING):
        made.train()
    assert "one in 2 images" in caplog.text
    assert made.scoring.validation().images == 2


def test_a_budget_that_only_reads_the_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="over before the first step"):
        Trainer(timed("minutes=1.5"), tmp_path).train()
