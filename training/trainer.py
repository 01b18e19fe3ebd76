"""One training run: seeded, resumable to the bit on CPU, and hard to lose."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtcp_serve.utils.atomic import remove_leftovers
from training import checkpoint
from training.average import WeightAverage
from training.balancing import StepResult
from training.balancing.meta import MetaBalancer
from training.class_weights import resolve
from training.config import RunConfig
from training.data import Batch
from training.dataloader import Feed
from training.distributed import (
    launch,
    loss_scale,
    mean_over_ranks,
    seed_step,
    share_clock,
)
from training.epoch_stats import Tally
from training.evaluation import validation_sources
from training.metrics import Report
from training.model import Network
from training.model.pretrained import initialise
from training.objective import Objective
from training.optim import build_optimizer, set_rate
from training.parts import build_engine, build_network, captured, check_settings
from training.progress import EpochProgress
from training.resuming import extends, resumable
from training.run_log import HISTORY, History, read_history, shown
from training.running_statistics import RunningStatistics
from training.schedule import SAVE_EVERY_S, Clock, Schedule
from training.scoring import Scoring
from training.step_records import StepRecord, StepRecords
from training.training_step import Held, Step, checkpoint_activations, take_meta_step
from training.weight_choice import columns, compare
from training.weight_update import WeightUpdate

log = logging.getLogger(__name__)

LAST = "last.pt"


class TrainingError(RuntimeError):
    """A run that cannot go on; the last good checkpoint is kept."""


class Trainer:
    """Trains ``config`` in the folder ``run``; picks up ``last.pt`` there where it stopped.

    With several devices every process has a Trainer; all see the same losses and weights, rank 0 writes.
    A step reads nothing back from the device: what became of it is read back with others, on a GPU every
    ``log_every`` steps. ``check`` False trusts that every label file can be read.

    Raises:
        ConfigError, DataError, WeightsError: before the first step, whatever would lose it later.
    """

    def __init__(self, config: RunConfig, run: Path, check: bool = True) -> None:
        check_settings(config)
        self.config, self.run = config, run
        self.fabric = launch(config)
        self.clock = Clock(share=share_clock(self.fabric))
        torch.manual_seed(config.seed)
        self.engine = build_engine(config, self._mean, self.fabric)
        val = validation_sources(config.data, config.tasks, check)
        self.feed = Feed(config, self.fabric, check, lambda epoch: self.schedule.epoch(epoch))
        self.schedule = Schedule(config, -(-self.feed.steps_per_epoch // config.optim.accumulate), self.clock)
        self.network = build_network(config)
        initialise(self.network, config.init)
        self.network.to(self.fabric.device).to(memory_format=torch.channels_last)
        self.average = WeightAverage(self.network, config.optim.ema) if config.optim.ema else None
        self.scoring = Scoring(config, self.fabric, val, self.network, self.average)
        self.optimizer = build_optimizer(self.network, self.engine.balancer, config.optim)
        several = self.fabric.world_size > 1
        self.class_weights = resolve(config.loss.class_weights, config.tasks, self.feed.mixture)
        weights = {name: found.targets for name, found in self.class_weights.items()}
        self.objective = Objective(config.tasks, config.loss, self._mean if several else None, weights)
        self.forward_step = Step(self.network, self.objective, self.engine)
        if config.activation_checkpointing:
            checkpoint_activations(self.network)
        if config.compile:
            self.forward_step.compile_with(config.compile)
        self._model, stepper = self.fabric.setup(self.forward_step, self.optimizer)
        self._update = WeightUpdate(self.fabric, self.optimizer, stepper, config.optim.clip_norm)
        self._statistics = RunningStatistics(self.network)
        self.epoch = self.step = self.step_in_epoch = self.updates = self.bad_steps = 0
        self.finished = False
        self.better: str | None = None
        self._records = StepRecords()
        self._read_every = 1 if self.fabric.device.type == "cpu" else config.log_every
        self._shown = ""
        self._tally = Tally(len(config.tasks), self.fabric.device)
        self._unreported: dict[str, Any] | None = None
        self._history: History | None = None
        self._saved_at, self._save_seconds = self.clock.spent(), 0.0

    # -- pieces --------------------------------------------------------------------------------------------

    def _mean(self, numbers: Tensor) -> Tensor:
        return mean_over_ranks(self.fabric, numbers)

    @property
    def best(self) -> Network:
        """See `Scoring.best`."""
        return self.scoring.best

    @property
    def shipped(self) -> str:
        """See `Scoring.shipped`."""
        return self.scoring.shipped

    # -- state ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of plain types and tensors."""
        return {
            **checkpoint.described(self.config),
            "model": self.network.state_dict(),
            "ema": None if self.average is None else self.average.module.state_dict(),
            "averaged": None if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "engine": self.engine.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "progress": [self.epoch, self.step, self.step_in_epoch, self.updates, self.bad_steps],
            "plan": self.schedule.progress,
            "scored_every": self.scoring.every,
            "finished": self.finished,
            "better": self.better,
            "tally": self._tally.state(),
            "unreported": self._unreported,
            "class_weights": {name: list(found.classes) for name, found in self.class_weights.items()},
        }

    def save(self) -> None:
        """Write ``last.pt`` atomically; only between updates, for gradients are not kept."""
        assert not self._update.pending
        self._read_back()
        began = spent = self.clock.spent()
        if self.fabric.is_global_zero:
            checkpoint.save(self.run / LAST, {**self.state(), "seconds": spent + self._save_seconds})
        self._saved_at = self.clock.spent()
        self._save_seconds = max(self._save_seconds, self._saved_at - began)

    def resume(self) -> bool:
        """Continue from ``last.pt``, made on any kind and number of devices; False if there is none.

        What a killed process left of writing it is removed.

        Raises:
            CheckpointError: it is damaged, or was made by another configuration or an earlier version.
        """
        path = self.run / LAST
        if self.fabric.is_global_zero:
            remove_leftovers(path)
        if not path.exists():
            return False
        state, before = resumable(path, self.config)
        self.network.load_state_dict(state["model"])
        if self.average is not None:
            self.average.module.load_state_dict(state["ema"])
            self.average.updates = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.engine.load_state_dict(state["engine"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.step, self.step_in_epoch, self.updates, self.bad_steps = state["progress"]
        self.clock.resume(state["seconds"])
        goes_on = extends(before, self.config)
        self.finished = state["finished"] and not goes_on
        self.better = None if goes_on else state["better"]
        self.scoring.every = 1 if goes_on else state.get("scored_every", 1)  # versions before kept none
        self.schedule.resume(state["plan"], goes_on)
        self._tally.load(**state["tally"])
        self._unreported = state.get("unreported")
        log.info("resumed %s at epoch %d, step %d", path, self.epoch, self.step)
        return True

    # -- running -------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether all training is done; what is left is at most the report on the last epoch."""
        return self.finished or (self.schedule.budget is None and self.epoch >= self.config.epochs)

    def train(self, until: float = float("inf")) -> bool:
        """Run to the end, or until ``time.monotonic()`` passes ``until``; whether all is done.

        Raises:
            TrainingError: too many steps in a row had a non-finite loss or gradient, or the budget is over
                before the first step, or the disk is full.
            HistoryError: the ``history.csv`` of the run is damaged.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        if self.fabric.is_global_zero:
            self._history = History(self.run, self.config.tensorboard)
        try:
            if self._unreported is not None and not self._is_reported(self._unreported):
                self._report(self._unreported)
            if not self.done:
                self._prepare()
            while not self.done:
                if not self._train_epoch(until):
                    return False
        except OSError as error:
            raise TrainingError(
                f"{error}; what {self.run / LAST} holds is good: with that mended, the same command goes on"
            ) from error
        finally:
            self.feed.close()
            if self._history is not None:
                self._history.close()
        self.fabric.barrier()
        return True

    def _prepare(self) -> None:
        """What is done once before the first step of a process."""
        seconds = 0.0 if self.schedule.budget is None else self._rehearse()
        if self.config.cuda_graphs:  # before a loader's thread works on the GPU too
            self.forward_step.graphs = captured(
                self.config, self.fabric, self.network, self.objective, self.engine.balancer, self.feed
            )
        if self.schedule.budget is not None:
            self._plan_time(self.schedule.budget, seconds)
        self.schedule.advance(self.updates)

    def _rehearse(self) -> float:
        """Save and validate a little; about how many seconds a validation takes."""
        self.save()
        return self.clock.share(self.scoring.seconds())

    def _plan_time(self, budget: float, seconds: float) -> None:
        """Keep time back for validating, which takes ``seconds``, and for saving."""
        saving = self.clock.share(self._save_seconds)
        self.scoring.every = every = max(1, math.ceil(seconds / (budget / 3)))
        if every > 1:
            log.warning(
                "validating would take about %.0f of %.0f s: the run scores one in %d images at its end",
                *(seconds, budget, every),
            )
        kept = 1.5 * seconds / every + 3 * saving + 0.01 * budget
        self.schedule.reserve(kept)
        self.schedule.advance(self.updates)
        spent = self.clock.spent()
        log.info("%.0f of %.0f s are over, %.0f s kept back to validate and save", spent, budget, kept)
        if self.schedule.over and not self.step:
            raise TrainingError(
                f"the budget of {budget:.0f} s is over before the first step: reading the data took "
                f"{spent:.0f} s, validating and saving would take {kept:.0f} s; give more minutes"
            )

    def _train_epoch(self, until: float) -> bool:
        config = self.config
        self.network.train()
        started = time.monotonic()
        saved, quiet = self.step_in_epoch, not self.fabric.is_global_zero
        total, first = self.feed.steps_per_epoch, self.step_in_epoch
        with EpochProgress(self.epoch, total, first, config.log_every, quiet) as progress:
            for batch in self._batches():
                self._train_step(batch)
                progress.advance(self._shown)
                if self._update.pending:
                    continue
                if self.schedule.over:
                    break
                late = time.monotonic() > until
                if late or self._save_is_due(saved):
                    self.save()
                    saved = self.step_in_epoch
                    if late:
                        return False
        self._end_epoch(time.monotonic() - started)
        return True

    def _save_is_due(self, saved: int) -> bool:
        """Whether to save now, after a checkpoint at step ``saved`` of the epoch."""
        if self.schedule.budget is not None:
            return self.schedule.spent > self._saved_at + SAVE_EVERY_S
        every = self.config.checkpoint_every
        return self.step_in_epoch // every > saved // every

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch's batches, each after the meta step of a balancer that looks ahead."""
        batches = self.feed.batches(self.epoch, self.step_in_epoch)
        balancer = self.engine.balancer
        if not isinstance(balancer, MetaBalancer):
            yield from batches
            return
        for batch, second in zip(batches, self.feed.batches(self.epoch, self.step_in_epoch, 1), strict=True):
            seed_step(self.config.seed, self.step, self.fabric.global_rank)
            set_rate(self.optimizer, self.schedule.rate(self.updates))
            take_meta_step(
                balancer, self.network, self.objective, (batch, second), self.optimizer, self._mean
            )
            yield batch

    def _train_step(self, batch: Batch) -> StepResult:
        start = self.step_in_epoch // self.config.optim.accumulate * self.config.optim.accumulate
        group = min(self.config.optim.accumulate, self.feed.steps_per_epoch - start)
        last = self.step_in_epoch == start + group - 1
        seed_step(self.config.seed, self.step, self.fabric.global_rank)
        set_rate(self.optimizer, self.schedule.rate(self.updates))
        several, before = self.fabric.world_size > 1, self._statistics.copy()
        waits = self.fabric.no_backward_sync(self._model) if several and not last else nullcontext()
        with waits:
            result: StepResult = self._model(Held(batch), self.epoch, self.step, loss_scale(self.fabric))
            labelled = result.supervised.any()
            self.fabric.backward(result.total * labelled / group)
        self._statistics.put_back(before, result.finite)
        self._tally.add(result, result.finite & labelled)
        self._update.add(result, labelled)
        rate = self.optimizer.param_groups[0]["lr"]
        self._records.add(self.step, batch["id"], rate, result, self._make_update() if last else None)
        self.step += 1
        self.step_in_epoch += 1
        self.schedule.advance(self.updates)
        if self.step_in_epoch % self._read_every == 0 or self.step_in_epoch == self.feed.steps_per_epoch:
            self._read_back()
        return result

    def _make_update(self) -> tuple[Tensor, Tensor]:
        """See `WeightUpdate.make`."""
        outcome = self._update.make(self.network)
        self.updates += 1
        if self.average is not None:
            self.average.update(self.network)
        return outcome

    # -- records -------------------------------------------------------------------------------------------

    def _read_back(self) -> None:
        """Learn what became of the steps since the last time."""
        for record in self._records.read():
            self._heed(record)

    def _heed(self, record: StepRecord) -> None:
        self._shown = "losses " + " ".join(f"{loss:.3f}" for loss in record.losses)
        self._log_step(record)
        if not record.finite:
            names = [
                task.name
                for task, loss in zip(self.config.tasks, record.losses, strict=True)
                if not math.isfinite(loss)
            ]
            self._skip(f"non-finite loss of {', '.join(names) or 'an intermediate prediction'}", record)
        elif not record.supervised:
            log.warning("step %d skipped, no image has a label: %s", record.step, record.images)
            self._tally.empty += 1
        elif record.overflowed:
            self._skip("non-finite gradient", record)
        elif record.updated:
            self.bad_steps = 0

    def _skip(self, why: str, record: StepRecord) -> None:
        log.warning("step %d skipped, %s; images %s", record.step, why, record.images)
        self.bad_steps += 1
        self._tally.skipped += 1
        if self.bad_steps >= self.config.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} steps in a row had a non-finite loss or gradient; the last good state is "
                f"in {self.run / LAST}; lower optim.lr or set optim.clip_norm"
            )

    def _log_step(self, record: StepRecord) -> None:
        if self._history is None or (record.step + 1) % self.config.log_every:
            return
        names = [task.name for task in self.config.tasks]
        values = {f"loss/{name}": loss for name, loss in zip(names, record.losses, strict=True)}
        values |= {f"weight/{name}": weight for name, weight in zip(names, record.loss_weights, strict=True)}
        self._history.step(record.step + 1, values | {"lr": record.lr})

    def _end_epoch(self, seconds: float) -> None:
        self._read_back()
        names = [task.name for task in self.config.tasks]
        row = self._tally.row(names, self.engine.balancer.separate_encoder_weights)
        for name in names:
            if not row[f"labelled/{name}"]:
                log.warning("epoch %d: no image had a label of %s", self.epoch, name)
        row = {"epoch": self.epoch, "step": self.step, "seconds": round(seconds, 1)} | row
        self._unreported = row
        self.engine.balancer.end_epoch(self._tally.losses)
        self._tally = Tally(len(names), self.fabric.device)
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.finished = self.done or self.schedule.over
        if self.finished or self.schedule.budget is None:
            self.save()
        self._report(row)

    def _is_reported(self, row: dict[str, Any]) -> bool:
        return any(int(old["epoch"]) == row["epoch"] for old in read_history(self.run / HISTORY))

    def _report(self, row: dict[str, Any]) -> None:
        """Validate and write down the epoch that ended last, maybe in a process that died of doing so."""
        by_epoch = self.schedule.budget is None and self.epoch % self.config.validate_every == 0
        reports = self.validate() if self.done or by_epoch else {}
        row = row | columns(reports)
        if self._history is not None:
            self._history.epoch(row)
            log.info("epoch %d: %s", row["epoch"], shown(row))
        self._unreported = None
        compared = compare(reports, self.config.tasks)
        if compared is not None:
            self.better = compared[0]
            log.info(
                "better on validation: %s weights; the average has %+.2f %% over the raw ones", *compared
            )
            self.save()

    def validate(self) -> dict[str, Report]:
        """All metrics of the validation sources, which the ranks share; each rank must call this.

        By the weights: ``raw``, and ``average`` where there is one. Before the end of a run with an average
        that alone is scored.
        """
        if self.done:
            self.feed.close()
        return self.scoring.score(raw_too=self.done)
