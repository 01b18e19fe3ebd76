"""How far a run is, by epochs or by the minutes it was given, and what depends on that: rates and sizes."""

import time
from collections.abc import Callable

from training.config import OptimConfig, RunConfig

WARMUP_SHARE = 0.05
"""Of the training time of a run with a budget: its warm-up ends there, if ``warmup_steps`` did not before."""
SAVE_EVERY_S = 60.0
"""Seconds between two checkpoints of a run with a budget, whose epochs may be seconds long."""


class Clock:
    """Seconds that a run has spent, in this process and in those that it resumed.

    Args:
        now: the time in seconds, from any start.
        share: gives every rank the number of rank 0; every rank must call it.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        share: Callable[[float], float] = lambda number: number,
    ) -> None:
        self._now = now
        self._started, self._before = now(), 0.0
        self.share = share

    def spent(self) -> float:
        """Seconds so far, the same on all ranks; every rank must call this."""
        return self.share(self._before + self._now() - self._started)

    def resume(self, before: float) -> None:
        """Add the seconds of the processes before this one."""
        self._before = before


class Schedule:
    """The plan of a run: progress 0 to 1, and the factor on all learning rates that belongs to it.

    By epochs, progress is the share of the updates done. With a budget it is the share of the time between
    the first step and the end of training, which is the budget less what :meth:`reserve` keeps back; a
    resumed run spreads the rest of its progress over the time that is left. Then ``epochs`` is the nominal
    length: settings that name an epoch (``data.progressive``, decay by epoch) take place at its share.
    :attr:`spent` is the time of the latest look at the clock.
    """

    def __init__(self, config: RunConfig, updates_per_epoch: int, clock: Clock) -> None:
        self._optim, self._epochs = config.optim, config.epochs
        self._per_epoch, self._clock = updates_per_epoch, clock
        self.budget = None if config.minutes is None else 60 * config.minutes
        self.progress = self.spent = 0.0
        self._anchor = (0.0, 0.0)  # seconds spent and progress where the present stretch of the plan begins
        self._end = self.budget or 0.0

    def reserve(self, seconds: float) -> None:
        """Plan to end training ``seconds`` before the budget is over; the time until now is not training."""
        assert self.budget is not None
        self._end = self.budget - seconds
        self._anchor = (self._clock.spent(), self.progress)

    def resume(self, progress: float, extended: bool) -> None:
        """Go on from the progress of a checkpoint, less of it where the run was given more time since."""
        if self.budget is not None and extended:
            progress = min(progress, self._clock.spent() / self.budget)
        self.progress = progress

    def advance(self, update: int) -> None:
        """Set :attr:`progress` for the update counted from 0 that comes next; every rank must call this."""
        if self.budget is None:
            self.progress = min(1.0, update / (self._per_epoch * self._epochs))
            return
        self.spent = self._clock.spent()
        since, before = self._anchor
        left = self._end - since
        share = min(1.0, max(0.0, (self.spent - since) / left)) if left > 0 else 1.0
        self.progress = before + (1 - before) * share

    @property
    def over(self) -> bool:
        """Whether the time for training is over; never in a run by epochs."""
        return self.budget is not None and self.progress >= 1

    def epoch(self, epoch: int) -> float:
        """The nominal epoch for ``epoch``: itself, or by the clock."""
        return epoch if self.budget is None else self.progress * self._epochs

    def rate(self, update: int) -> float:
        """The factor on all learning rates at an update counted from 0."""
        if self.budget is None:
            return rate(update, self._per_epoch, self._epochs, self._optim)
        done = self.progress
        if not self._optim.per_step:
            done = int(done * self._epochs) / self._epochs
        return warm_up(update, self._optim, self.progress / WARMUP_SHARE) * decay(done, self._optim)


def rate(update: int, updates_per_epoch: int, epochs: int, optim: OptimConfig) -> float:
    """The factor on all learning rates at an update counted from 0 of a run by epochs."""
    total = updates_per_epoch * epochs
    done = update if optim.per_step else update // updates_per_epoch * updates_per_epoch
    return warm_up(update, optim) * decay(done / total, optim)


def warm_up(update: int, optim: OptimConfig, share: float = 0.0) -> float:
    """Linear over ``warmup_steps`` updates; 1 earlier where ``share`` of the warm-up's time reaches 1."""
    return min(1.0, max(share, (update + 1) / optim.warmup_steps)) if optim.warmup_steps else 1.0


def decay(progress: float, optim: OptimConfig) -> float:
    """Polynomial in what is left, (1 - progress) ** ``power`` (Sec. 4.2)."""
    return float(max(0.0, 1 - progress) ** optim.power)
