"""One training run: seeded, resumable to the bit on CPU, and hard to lose."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import checkpoint
from training.average import WeightAverage
from training.balancing import Engine, StepResult, build_balancer
from training.balancing.meta import MetaBalancer
from training.class_weights import resolve
from training.config import ConfigError, RunConfig
from training.data import Batch
from training.dataloader import Feed
from training.distributed import (
    autocast,
    launch,
    loss_scale,
    mean_over_ranks,
    seed_step,
    share_buffers,
    share_clock,
    unscale,
)
from training.epoch_stats import Tally
from training.evaluation import Report, Validation, validation_sources
from training.graphs import GraphedStep, capture_all, refusal
from training.model import Network, build_network
from training.model.pretrained import initialise
from training.objective import Objective
from training.optim import build_optimizer, set_rate
from training.progress import EpochProgress
from training.resuming import extends, resumable
from training.run_log import HISTORY, History, read_history, shown
from training.schedule import SAVE_EVERY_S, Clock, Schedule
from training.step_records import StepRecord, StepRecords
from training.training_step import Held, Step, checkpoint_activations
from training.weight_choice import AVERAGE, RAW, columns, compare

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
        self.config, self.run = config, run
        self.fabric = launch(config)
        self.clock = Clock(share=share_clock(self.fabric))
        torch.manual_seed(config.seed)
        self._val = validation_sources(config.data, config.tasks, check)
        self.feed = Feed(config, self.fabric, check, lambda epoch: self.schedule.epoch(epoch))
        self.schedule = Schedule(config, -(-self.feed.steps_per_epoch // config.optim.accumulate), self.clock)
        self.network = self._build_network()
        initialise(self.network, config.init)
        self.network.to(self.fabric.device).to(memory_format=torch.channels_last)
        self.average = WeightAverage(self.network, config.optim.ema) if config.optim.ema else None
        self.engine = self._build_engine()
        self.optimizer = build_optimizer(self.network, self.engine.balancer, config.optim)
        several = self.fabric.world_size > 1
        self.class_weights = resolve(config.loss.class_weights, config.tasks, self.feed.mixture)
        weights = {name: found.targets for name, found in self.class_weights.items()}
        self.objective = Objective(config.tasks, config.loss, self._mean if several else None, weights)
        self.forward_step = Step(self.network, self.objective, self.engine)
        if config.activation_checkpointing:
            checkpoint_activations(self.network)
        if config.compile:
            known = torch.compiler.list_backends(exclude_tags=())
            if config.compile not in known:
                raise ConfigError(f"compile: no backend {config.compile!r}; there are {', '.join(known)}")
            self.forward_step.compile_with(config.compile)
        self._model, self._stepper = self.fabric.setup(self.forward_step, self.optimizer)
        self.epoch = self.step = self.step_in_epoch = self.updates = self.bad_steps = 0
        self.finished = False
        self.better: str | None = None
        self._pending = 0
        self._spoilt = self._taught = torch.zeros((), dtype=torch.bool, device=self.fabric.device)
        self._records = StepRecords()
        self._read_every = 1 if self.fabric.device.type == "cpu" else config.log_every
        self._shown = ""
        self._tally = Tally(len(config.tasks), self.fabric.device)
        self._unreported: dict[str, Any] | None = None
        self._history: History | None = None
        self._saved_at, self._save_seconds, self._validate_each = self.clock.spent(), 0.0, 1

    # -- pieces --------------------------------------------------------------------------------------------

    def _mean(self, numbers: Tensor) -> Tensor:
        return mean_over_ranks(self.fabric, numbers)

    def _build_network(self) -> Network:
        try:
            return build_network(self.config.model)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error

    def _build_engine(self) -> Engine:
        chosen = self.config.balancer
        try:
            balancer = build_balancer(chosen.name, [task.name for task in self.config.tasks], chosen.options)
        except ValueError as error:
            raise ConfigError(f"balancer: {error}") from error
        engine = Engine(
            balancer, update_interval=chosen.update_interval, reduce=self._mean, ranks=self.fabric.world_size
        )
        return engine.to(self.fabric.device)

    @property
    def best(self) -> Network:
        """The weights to validate and ship: the average where there is one."""
        return self.network if self.average is None else self.average.module

    # -- state ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of plain types and tensors."""
        return {
            "config": self.config.model_dump(mode="json"),
            "model": self.network.state_dict(),
            "ema": None if self.average is None else self.average.module.state_dict(),
            "averaged": None if self.average is None else self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "engine": self.engine.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "progress": [self.epoch, self.step, self.step_in_epoch, self.updates, self.bad_steps],
            "plan": self.schedule.progress,
            "finished": self.finished,
            "better": self.better,
            "tally": self._tally.state(),
            "unreported": self._unreported,
            "class_weights": {name: list(found.classes) for name, found in self.class_weights.items()},
        }

    def save(self) -> None:
        """Write ``last.pt`` atomically; only between updates, for gradients are not kept."""
        assert not self._pending
        self._read_back()
        began = spent = self.clock.spent()
        if self.fabric.is_global_zero:
            checkpoint.save(self.run / LAST, {**self.state(), "seconds": spent + self._save_seconds})
        self._saved_at = self.clock.spent()
        self._save_seconds = max(self._save_seconds, self._saved_at - began)

    def resume(self) -> bool:
        """Continue from ``last.pt``, made on any kind and number of devices; False if there is none.

        Raises:
            CheckpointError: it is damaged, or was made by another configuration or an earlier version.
        """
        path = self.run / LAST
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
        self.finished, self.better = state["finished"] and not extends(before, self.config), state["better"]
        self.schedule.resume(state["plan"], extends(before, self.config))
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
        if self.config.cuda_graphs:
            self._capture()
        if self.schedule.budget is not None:
            self._plan_time(self.schedule.budget, seconds)
        self.schedule.advance(self.updates)

    def _capture(self) -> None:
        """Capture CUDA graphs of all sizes, before a loader's thread works on the GPU too."""
        device = self.fabric.device
        why = refusal(self.config, device, self.fabric.world_size, self.engine.balancer)
        if why is not None:
            log.warning("cuda_graphs: not used, %s", why)
            return
        self.network.train()
        graphs = GraphedStep(self.network, self.objective, lambda: autocast(self.config, device))
        if capture_all(graphs, self.feed.examples()):
            self.forward_step.graphs = graphs

    def _rehearse(self) -> float:
        """Save and validate a little; about how many seconds a validation takes."""
        self.save()
        return self.clock.share(self._validation().seconds(self._networks()))

    def _plan_time(self, budget: float, seconds: float) -> None:
        """Keep time back for validating, which takes ``seconds``, and for saving."""
        saving = self.clock.share(self._save_seconds)
        self._validate_each = max(1, math.ceil(seconds / (budget / 3)))
        if self._validate_each > 1:
            log.warning(
                "validating would take about %.0f of %.0f s: the run scores one in %d images at its end",
                *(seconds, budget, self._validate_each),
            )
        kept = 1.5 * seconds / self._validate_each + 3 * saving + 0.01 * budget
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
                if self._pending:
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
            rates = {p: group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
            closures = partial(self._plain_losses, batch), partial(self._plain_losses, second)
            balancer.meta_step(self.network, *closures, rates, self._mean)
            yield batch

    def _plain_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Final losses [T] and the sum of all unweighted terms, in fp32 and past all wrappers."""
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        terms = self.objective(self.network(images), batch)
        return torch.stack(list(terms.losses)), torch.stack([*terms.aux_losses, terms.coherence_loss]).sum()

    def _train_step(self, batch: Batch) -> StepResult:
        start = self.step_in_epoch // self.config.optim.accumulate * self.config.optim.accumulate
        group = min(self.config.optim.accumulate, self.feed.steps_per_epoch - start)
        last = self.step_in_epoch == start + group - 1
        seed_step(self.config.seed, self.step, self.fabric.global_rank)
        set_rate(self.optimizer, self.schedule.rate(self.updates))
        several = self.fabric.world_size > 1
        waits = self.fabric.no_backward_sync(self._model) if several and not last else nullcontext()
        with waits:
            result: StepResult = self._model(Held(batch), self.epoch, self.step, loss_scale(self.fabric))
            labelled = result.supervised.any()
            self.fabric.backward(result.total * labelled / group)
        self._tally.add(result, result.finite & labelled)
        self._spoilt = ~result.finite | self._spoilt if self._pending else ~result.finite
        self._taught = labelled | self._taught if self._pending else labelled
        self._pending += 1
        rate = self.optimizer.param_groups[0]["lr"]
        self._records.add(self.step, batch["id"], rate, result, self._update() if last else None)
        self.step += 1
        self.step_in_epoch += 1
        self.schedule.advance(self.updates)
        if self.step_in_epoch % self._read_every == 0 or self.step_in_epoch == self.feed.steps_per_epoch:
            self._read_back()
        return result

    def _update(self) -> tuple[Tensor, Tensor]:
        """One optimizer step on the gradients at hand, or none where a loss or the gradient is not finite.

        The device decides. Returns two of its bools: the gradient of finite losses is not finite, and the
        weights have changed.
        """
        trained = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        unscale(self.fabric, self.optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.optim.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.config.optim.clip_norm, norm)
        overflowed = ~norm.isfinite()
        skip = self._spoilt | ~self._taught | overflowed
        self.optimizer.skip = skip.float()
        self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self._pending = 0
        self.updates += 1
        if self.average is not None:
            self.average.update(self.network)
        return overflowed & ~self._spoilt, ~skip

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

    def _networks(self) -> dict[str, Network]:
        return {RAW: self.network} if self.average is None else {AVERAGE: self.best, RAW: self.network}

    def _validation(self) -> Validation:
        data, fabric = self.config.data, self.fabric
        shard = (fabric.global_rank, fabric.world_size)
        return Validation(
            self._val, data.batch_size, fabric.device, data.workers, shard=shard, every=self._validate_each
        )

    @property
    def shipped(self) -> str:
        """Which weights :attr:`best` are."""
        return RAW if self.average is None else AVERAGE

    def validate(self) -> dict[str, Report]:
        """All metrics of the validation sources, which the ranks share; each rank must call this.

        By the weights: ``raw``, and ``average`` where there is one. Before the end of a run with an average
        that alone is scored.
        """
        networks = self._networks()
        if self.done:
            self.feed.close()
        elif AVERAGE in networks:
            del networks[RAW]
        for network in networks.values():
            share_buffers(self.fabric, network)
        return self._validation().score(networks)
