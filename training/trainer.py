"""One training run: seeded, resumable to the bit on CPU, and hard to lose."""

import csv
import logging
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from training import checkpoint
from training.config import RunConfig
from training.data import Batch, Mixture, MixtureSampler, build_source, collate, validate
from training.evaluation import evaluate, validation_sources
from training.model import MTCP
from training.model.pretrained import initialise
from training.objective import Objective, Terms
from training.weighting import Observation, build_balancer

log = logging.getLogger(__name__)

LAST = "last.pt"


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``history.csv``, one an epoch; none if there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TrainingError(RuntimeError):
    """A run that cannot go on; the last good checkpoint is kept."""


class Trainer:
    """Trains ``config`` in the folder ``run``; picks up ``last.pt`` there where it stopped.

    Raises:
        ConfigError, DataError, WeightsError: before the first step, whatever would lose it later.
    """

    def __init__(self, config: RunConfig, run: Path) -> None:
        self.config, self.run = config, run
        torch.manual_seed(config.seed)
        self.device = torch.device(config.device)
        self._val = validation_sources(config.data, config.tasks)
        self._mixture_size: tuple[int, int] | None = None
        self._prepare_data(0)
        network = MTCP(config.model)
        initialise(network, config.init)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.objective = Objective(config.tasks, config.loss)
        self.balancer = build_balancer(config.balancer.name, len(config.tasks), config.balancer.options)
        self.balancer.to(self.device)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), weight_decay=config.optim.weight_decay)
        self.schedule = LambdaLR(self.optimizer, self._rate)
        self.ema = self._average() if config.optim.ema else None
        self.epoch = self.step = self.step_in_epoch = self.bad_steps = 0
        self._sums = torch.zeros(2, len(config.tasks), dtype=torch.float64)

    # -- pieces --------------------------------------------------------------------------------------------

    def _prepare_data(self, epoch: int) -> None:
        data, size = self.config.data, self.config.data.size_at(epoch)
        if size == self._mixture_size:
            return
        sources = [build_source(source, self.config.tasks, size, data.augment) for source in data.train]
        if self._mixture_size is None:
            validate(sources)
        self._mixture_size = size
        self.mixture = Mixture(sources)
        self.sampler = MixtureSampler(self.mixture, self.config.seed, data.batch_size, data.samples_per_epoch)
        self.steps_per_epoch = max(1, len(self.sampler) // data.batch_size)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        optim = self.config.optim
        encoder = {id(p) for p in self.network.backbone.encoder.parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for parameter in self.network.parameters():
            if not parameter.requires_grad:
                continue
            rate = optim.encoder_lr or optim.lr if id(parameter) in encoder else optim.lr
            decay = optim.weight_decay if parameter.ndim > 1 else 0.0  # no decay on norms and biases
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()
        ]

    def _rate(self, step: int) -> float:
        optim = self.config.optim
        total = self.steps_per_epoch * self.config.epochs
        done = step if optim.per_step else step // self.steps_per_epoch * self.steps_per_epoch
        warm = min(1.0, (step + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
        return float(warm * max(0.0, 1 - done / total) ** optim.power)

    def _average(self) -> AveragedModel:
        decay = self.config.optim.ema
        assert decay is not None
        return AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]

    @property
    def best(self) -> MTCP:
        """The weights to validate and ship: the average where there is one."""
        chosen = self.network if self.ema is None else self.ema.module
        assert isinstance(chosen, MTCP)
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
            "balancer": self.balancer.state_dict(),
            "progress": [self.epoch, self.step, self.step_in_epoch, self.bad_steps],
            "sums": self._sums,
            "rng": torch.get_rng_state(),
        }

    def save(self) -> None:
        """Write ``last.pt`` atomically."""
        checkpoint.save(self.run / LAST, self.state())

    def resume(self) -> bool:
        """Continue from ``last.pt``; False if there is none.

        Raises:
            CheckpointError: it is damaged, or was made by another configuration.
        """
        path = self.run / LAST
        if not path.exists():
            return False
        state = checkpoint.load(path)
        if state["config"] != self.config.model_dump(mode="json"):
            raise checkpoint.CheckpointError(
                f"{path} belongs to another configuration; choose another run folder or remove it"
            )
        self.network.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.balancer.load_state_dict(state["balancer"])
        self.epoch, self.step, self.step_in_epoch, self.bad_steps = state["progress"]
        self._sums = state["sums"]
        torch.set_rng_state(state["rng"])
        log.info("resumed %s at epoch %d, step %d", path, self.epoch, self.step)
        return True

    # -- running -------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run to the last epoch.

        Raises:
            TrainingError: too many steps in a row had a non-finite loss.
        """
        while self.epoch < self.config.epochs:
            self._train_epoch()

    def _train_epoch(self) -> None:
        data = self.config.data
        self._prepare_data(self.epoch)
        self.network.train()
        self.sampler.set_epoch(self.epoch, self.step_in_epoch)
        loader = DataLoader(
            self.mixture,
            data.batch_size,
            sampler=self.sampler,
            num_workers=data.workers,
            collate_fn=collate,
            drop_last=self.steps_per_epoch > 1,
            generator=torch.Generator().manual_seed(
                0
            ),  # keys carry the randomness; leave the global RNG alone
        )
        started = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as progress:
            bar = progress.add_task(
                f"epoch {self.epoch}", total=self.steps_per_epoch, completed=self.step_in_epoch
            )
            for batch in loader:
                terms = self._train_step(batch)
                shown = " ".join(f"{loss:.2f}" for loss in terms.losses.tolist())
                progress.update(bar, advance=1, description=f"epoch {self.epoch} losses {shown}")
                if self.step_in_epoch % self.config.checkpoint_every == 0:
                    self.save()
        self._end_epoch(time.monotonic() - started)

    def _train_step(self, batch: Batch) -> Terms:
        batch = {
            k: v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()
        }
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            predictions = self.network(images)
        terms = self.objective(predictions, batch)
        weights = self.balancer(Observation(terms.losses.detach(), self.epoch, self.step))
        total = (weights.heads * terms.losses).sum() + terms.extra
        if total.isfinite():
            self._update(total)
            self._sums += (
                torch.stack([terms.losses.detach().cpu(), torch.ones(len(terms.losses))]) * terms.supervised
            )
            self.bad_steps = 0
        else:
            self._skip(terms, batch["id"])
        self.step += 1
        self.step_in_epoch += 1
        return terms

    def _update(self, total: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self.config.optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def _skip(self, terms: Terms, ids: list[str]) -> None:
        names = [
            task.name
            for task, loss in zip(self.config.tasks, terms.losses, strict=True)
            if not loss.isfinite()
        ]
        log.warning("step %d skipped, non-finite loss of %s; images %s", self.step, names or "the rest", ids)
        self.bad_steps += 1
        if self.bad_steps >= self.config.max_bad_steps:
            raise TrainingError(
                f"{self.bad_steps} steps in a row had a non-finite loss; the last good state is in "
                f"{self.run / LAST}; lower optim.lr or set optim.clip_norm"
            )

    def _end_epoch(self, seconds: float) -> None:
        means = torch.where(self._sums[1] > 0, self._sums[0] / self._sums[1], torch.nan)
        weights = self.balancer(
            Observation(means.float().nan_to_num(0).to(self.device), self.epoch, self.step)
        ).heads
        self.balancer.end_epoch(means.float().to(self.device))
        finished = self.epoch
        self._sums.zero_()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.save()
        row = {"epoch": finished, "step": self.step, "seconds": round(seconds, 1)}
        for task, loss, weight in zip(self.config.tasks, means.tolist(), weights.tolist(), strict=True):
            row |= {f"loss/{task.name}": round(loss, 5), f"weight/{task.name}": round(weight, 5)}
        if self.epoch % self.config.validate_every == 0 or self.epoch == self.config.epochs:
            report = evaluate(self.best, self._val, self.config.data.batch_size, self.config.device)
            row |= {
                f"{name}/{key}": value for name, values in report.items() for key, value in values.items()
            }
        self._record(row)

    def _record(self, row: dict[str, Any]) -> None:
        """Append to ``history.csv``; columns that first appear now are added to the file."""
        path = self.run / "history.csv"
        rows = read_history(path)
        rows = [old for old in rows if int(old["epoch"]) < row["epoch"]] + [row]
        columns = list(dict.fromkeys(key for entry in rows for key in entry))
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(path)
        log.info("epoch %d: %s", row["epoch"], ", ".join(f"{k} {v}" for k, v in row.items() if k != "epoch"))
