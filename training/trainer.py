"""One training run: seeded, resumable to the bit on CPU, and hard to lose."""

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training import checkpoint
from training.balancing import Engine, build_balancer
from training.balancing.meta import MetaBalancer
from training.class_weights import resolve
from training.config import ConfigError, RunConfig, parse_config
from training.data import Batch
from training.dataloader import Feed
from training.distributed import launch, loss_scale, mean_over_ranks, seed_step, share_buffers
from training.epoch_stats import Tally
from training.evaluation import Report, evaluate, validation_sources
from training.model import Network, build_network
from training.model.pretrained import initialise
from training.objective import Objective
from training.optim import build_optimizer, rate
from training.progress import EpochProgress
from training.run_log import HISTORY, History, read_history
from training.training_step import Outcome, Step, checkpoint_activations

log = logging.getLogger(__name__)

LAST = "last.pt"


class TrainingError(RuntimeError):
    """A run that cannot go on; the last good checkpoint is kept."""


class Trainer:
    """Trains ``config`` in the folder ``run``; picks up ``last.pt`` there where it stopped.

    With several devices every process has a Trainer; all see the same losses and weights, rank 0 writes.
    ``check`` False trusts that every label file can be read.

    Raises:
        ConfigError, DataError, WeightsError: before the first step, whatever would lose it later.
    """

    def __init__(self, config: RunConfig, run: Path, check: bool = True) -> None:
        self.config, self.run = config, run
        self.fabric = launch(config)
        torch.manual_seed(config.seed)
        self._val = validation_sources(config.data, config.tasks, check)
        self.feed = Feed(config, self.fabric, check)
        self.network = self._build_network()
        initialise(self.network, config.init)
        self.network.to(self.fabric.device).to(memory_format=torch.channels_last)
        self.ema = self._average() if config.optim.ema else None
        self.engine = self._build_engine()
        self.optimizer = build_optimizer(self.network, self.engine.balancer, config.optim)
        self.schedule = LambdaLR(self.optimizer, self._rate)
        self.class_weights = resolve(config.loss.class_weights, config.tasks, self.feed.mixture)
        weights = {name: found.targets for name, found in self.class_weights.items()}
        self.objective = Objective(config.tasks, config.loss, self._mean, weights)
        self.forward_step = Step(self.network, self.objective, self.engine)
        if config.activation_checkpointing:
            checkpoint_activations(self.network)
        if config.compile:
            known = torch.compiler.list_backends(exclude_tags=())
            if config.compile not in known:
                raise ConfigError(f"compile: no backend {config.compile!r}; there are {', '.join(known)}")
            self.forward_step.compile_with(config.compile)
        self._model, self._stepper = self.fabric.setup(self.forward_step, self.optimizer)
        self.epoch = self.step = self.step_in_epoch = self.bad_steps = 0
        self._pending = 0
        self._tally = Tally(len(config.tasks))
        self._unreported: dict[str, Any] | None = None
        self._history: History | None = None

    # -- pieces --------------------------------------------------------------------------------------------

    def _mean(self, numbers: torch.Tensor) -> torch.Tensor:
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
        engine = Engine(balancer, every=chosen.every, reduce=self._mean, ranks=self.fabric.world_size)
        return engine.to(self.fabric.device)

    def _rate(self, update: int) -> float:
        updates_per_epoch = -(-self.feed.steps_per_epoch // self.config.optim.accumulate)
        return rate(update, updates_per_epoch, self.config.epochs, self.config.optim)

    def _average(self) -> AveragedModel:
        decay = self.config.optim.ema
        assert decay is not None
        return AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]

    @property
    def best(self) -> Network:
        """The weights to validate and ship: the average where there is one."""
        chosen = self.network if self.ema is None else self.ema.module
        assert isinstance(chosen, Network)
        return chosen

    # -- state ---------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs, of plain types and tensors."""
        return {
            "config": self.config.model_dump(mode="json"),
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "averaged": None if self.ema is None else self.ema.n_averaged,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "engine": self.engine.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "progress": [self.epoch, self.step, self.step_in_epoch, self.bad_steps],
            "tally": self._tally.state(),
            "unreported": self._unreported,
            "class_weights": {name: list(found.classes) for name, found in self.class_weights.items()},
        }

    def save(self) -> None:
        """Write ``last.pt`` atomically; only between updates, for gradients are not kept."""
        assert not self._pending
        if self.fabric.is_global_zero:
            checkpoint.save(self.run / LAST, self.state())

    def resume(self) -> bool:
        """Continue from ``last.pt``, made on any kind and number of devices; False if there is none.

        Raises:
            CheckpointError: it is damaged, or was made by another configuration or an earlier version.
        """
        path = self.run / LAST
        if not path.exists():
            return False
        state = checkpoint.load(path)
        where = {"device": self.config.device, "devices": self.config.devices}
        if parse_config(state["config"], path.name).model_copy(update=where) != self.config:
            raise checkpoint.CheckpointError(
                f"{path} belongs to another configuration; choose another run folder or remove it"
            )
        if "engine" not in state:
            raise checkpoint.CheckpointError(
                f"{path} has no state to resume from; to start from its weights, set init to a copy of it"
            )
        self.network.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.engine.load_state_dict(state["engine"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.step, self.step_in_epoch, self.bad_steps = state["progress"]
        self._tally.load(**state["tally"])
        self._unreported = state.get("unreported")
        log.info("resumed %s at epoch %d, step %d", path, self.epoch, self.step)
        return True

    # -- running -------------------------------------------------------------------------------------------

    def train(self, until: float = float("inf")) -> bool:
        """Run to the last epoch, or until ``time.monotonic()`` passes ``until``; whether all is done.

        Raises:
            TrainingError: too many steps in a row had a non-finite loss or gradient.
            HistoryError: the ``history.csv`` of the run is damaged.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        if self.fabric.is_global_zero:
            self._history = History(self.run, self.config.tensorboard)
        try:
            if self._unreported is not None and not self._is_reported(self._unreported):
                self._report(self._unreported)
            while self.epoch < self.config.epochs:
                if not self._train_epoch(until):
                    return False
        finally:
            if self._history is not None:
                self._history.close()
        self.fabric.barrier()
        return True

    def _train_epoch(self, until: float) -> bool:
        config = self.config
        self.feed.prepare(self.epoch)
        self.network.train()
        started = time.monotonic()
        done, quiet = self.step_in_epoch, not self.fabric.is_global_zero
        with EpochProgress(self.epoch, self.feed.steps_per_epoch, done, config.log_every, quiet) as progress:
            for batch in self._batches():
                outcome = self._train_step(batch)
                progress.advance("losses " + " ".join(f"{loss:.3f}" for loss in outcome.losses.tolist()))
                self._log_step(outcome)
                late = time.monotonic() > until
                if not self._pending and (late or self.step_in_epoch // config.checkpoint_every > done):
                    self.save()
                    done = self.step_in_epoch // config.checkpoint_every
                    if late:
                        return False
        self._end_epoch(time.monotonic() - started)
        return True

    def _batches(self) -> Iterator[Batch]:
        """The rest of the epoch's batches, each after the meta step of a balancer that looks ahead."""
        batches = self.feed.batches(self.epoch, self.step_in_epoch)
        balancer = self.engine.balancer
        if not isinstance(balancer, MetaBalancer):
            yield from batches
            return
        for batch, second in zip(batches, self.feed.batches(self.epoch, self.step_in_epoch, 1), strict=True):
            seed_step(self.config.seed, self.step, self.fabric.global_rank)
            rate = self.optimizer.param_groups[0]["lr"]
            closures = partial(self._plain_losses, batch), partial(self._plain_losses, second)
            balancer.meta_step(self.network, *closures, rate, self._mean)
            yield batch

    def _plain_losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Final losses [T] and the sum of all unweighted terms, in fp32 and past all wrappers."""
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        terms = self.objective(self.network(images), batch)
        return torch.stack(terms.losses), torch.stack([*terms.folded, terms.unweighted]).sum()

    def _train_step(self, batch: Batch) -> Outcome:
        start = self.step_in_epoch // self.config.optim.accumulate * self.config.optim.accumulate
        group = min(self.config.optim.accumulate, self.feed.steps_per_epoch - start)
        last = self.step_in_epoch == start + group - 1
        seed_step(self.config.seed, self.step, self.fabric.global_rank)
        several = self.fabric.world_size > 1
        waits = self.fabric.no_backward_sync(self._model) if several and not last else nullcontext()
        with waits:
            outcome: Outcome = self._model(batch, self.epoch, self.step, loss_scale(self.fabric))
            taught = outcome.finite and bool(outcome.supervised.any())
            if taught:
                self.fabric.backward(outcome.total / group)
        if taught:
            self._pending += 1
            self._tally.add(outcome)
        elif outcome.finite:
            log.warning("step %d skipped, no image has a label: %s", self.step, batch["id"])
            self._tally.empty += 1
        else:
            bad = self._named(outcome.losses)
            self._skip(f"non-finite loss of {bad or 'an intermediate prediction'}", batch)
        if last and self._pending:
            self._update(batch, reduced=taught or not several)
        self.step += 1
        self.step_in_epoch += 1
        return outcome

    def _update(self, batch: Batch, reduced: bool) -> None:
        """One optimizer step on the gradients at hand; ``reduced`` says that they are averaged over ranks."""
        parameters = [parameter for parameter in self.network.parameters() if parameter.grad is not None]
        if not reduced:  # the step that would have averaged them was skipped
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.copy_(self._mean(parameter.grad))
        precision = self.fabric.strategy.precision
        precision.unscale_gradients(self.optimizer)
        limit = self.config.optim.clip_norm or float("inf")
        finite = bool(torch.nn.utils.clip_grad_norm_(parameters, limit).isfinite())
        if finite or self.config.precision == "fp16":  # its scaler skips the step itself and lowers the scale
            self._stepper.step()
        self._stepper.zero_grad(set_to_none=True)
        self._pending = 0
        if not finite:
            self._skip("non-finite gradient", batch)
            return
        self.bad_steps = 0
        self.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def _named(self, losses: torch.Tensor) -> str:
        pairs = zip(self.config.tasks, losses, strict=True)
        return ", ".join(task.name for task, loss in pairs if not loss.isfinite())

    def _skip(self, why: str, batch: Batch) -> None:
        log.warning("step %d skipped, %s; images %s", self.step, why, batch["id"])
        self.bad_steps += 1
        self._tally.skipped += 1
        if self.bad_steps >= self.config.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} steps in a row had a non-finite loss or gradient; the last good state is "
                f"in {self.run / LAST}; lower optim.lr or set optim.clip_norm"
            )

    # -- records -------------------------------------------------------------------------------------------

    def _log_step(self, outcome: Outcome) -> None:
        if self._history is None or self.step % self.config.log_every:
            return
        names = [task.name for task in self.config.tasks]
        values = {f"loss/{name}": loss for name, loss in zip(names, outcome.losses.tolist(), strict=True)}
        values |= {
            f"weight/{name}": weight for name, weight in zip(names, outcome.heads.tolist(), strict=True)
        }
        self._history.step(self.step, values | {"lr": self.optimizer.param_groups[0]["lr"]})

    def _end_epoch(self, seconds: float) -> None:
        self._unreported = row = self._row(seconds)
        self.engine.balancer.end_epoch(self._tally.losses.to(self.fabric.device))
        self._tally = Tally(len(self.config.tasks))
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.save()
        self._report(row)

    def _is_reported(self, row: dict[str, Any]) -> bool:
        return any(int(old["epoch"]) == row["epoch"] for old in read_history(self.run / HISTORY))

    def _report(self, row: dict[str, Any]) -> None:
        """Validate and write down the epoch that ended last, maybe in a process that died of doing so."""
        if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
            report = self.validate()
            row = row | {
                f"{name}/{key}": value for name, values in report.items() for key, value in values.items()
            }
        if self._history is not None:
            self._history.epoch(row)
            shown = ", ".join(f"{key} {value}" for key, value in row.items() if key != "epoch")
            log.info("epoch %d: %s", row["epoch"], shown)
        self._unreported = None

    def _row(self, seconds: float) -> dict[str, Any]:
        tally = self._tally
        row: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "seconds": round(seconds, 1)}
        row |= {"skipped": tally.skipped, "empty": tally.empty}
        columns = {"loss": tally.losses.tolist(), "weight": tally.heads.tolist()}
        if self.engine.balancer.splits:
            columns["encoder_weight"] = tally.encoder.tolist()
        for index, task in enumerate(self.config.tasks):
            if not tally.labelled[index]:
                log.warning("epoch %d: no image had a label of %s", self.epoch, task.name)
            row |= {f"{name}/{task.name}": round(values[index], 5) for name, values in columns.items()}
            row[f"labelled/{task.name}"] = tally.labelled[index]
        return row

    def validate(self) -> Report:
        """All metrics of the validation sources, which the ranks share; each rank must call this."""
        share_buffers(self.fabric, self.best)
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        return evaluate(
            self.best, self._val, self.config.data.batch_size, self.fabric.device, shard=(rank, ranks)
        )
