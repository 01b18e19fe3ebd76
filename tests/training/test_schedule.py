"""The plan of a run, by epochs and by a clock that the test turns."""

import pytest

from tests.training.tiny import tiny_run
from training.config import ConfigError
from training.schedule import Clock, Schedule


class Hand:
    """The hand of a clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def planned(hand: Hand, *overrides: str, kept: float = 10.0) -> Schedule:
    """A schedule of a run of 2 nominal epochs with 4 updates each and a budget of 120 s."""
    clock = Clock(hand)
    schedule = Schedule(tiny_run("minutes=2", *overrides), 4, clock)
    hand.seconds += 20  # reading data
    schedule.reserve(kept)
    return schedule


def test_progress_runs_from_the_first_step_to_the_time_kept_back() -> None:
    hand = Hand()
    schedule = planned(hand)
    found = []
    for _ in range(4):
        schedule.advance(0)
        found.append((schedule.progress, schedule.over))
        hand.seconds += 30
    assert [progress for progress, _ in found] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [over for _, over in found] == [False, False, False, True]


def test_rates_warm_up_and_decay_by_the_clock() -> None:
    hand = Hand()
    schedule = planned(hand, "optim.warmup_steps=1000", "optim.power=1", "optim.per_step=true")
    schedule.advance(0)
    assert schedule.rate(0) == pytest.approx(1 / 1000)
    hand.seconds += 2.25
    schedule.advance(1)
    assert schedule.rate(1) == pytest.approx(0.5 * 0.975), "half of the warm-up's time is over"
    hand.seconds += 42.75
    schedule.advance(2)
    assert schedule.rate(2) == pytest.approx(0.5)
    hand.seconds += 100
    schedule.advance(3)
    assert schedule.rate(3) == 0


def test_a_short_warm_up_ends_with_its_steps() -> None:
    hand = Hand()
    schedule = planned(hand, "optim.warmup_steps=2", "optim.power=1", "optim.per_step=true")
    schedule.advance(1)
    assert schedule.rate(0) == 0.5
    assert schedule.rate(1) == 1


def test_nominal_epochs_follow_the_clock() -> None:
    hand = Hand()
    schedule = planned(hand, "optim.per_step=false", "optim.power=1", "optim.warmup_steps=0")
    hand.seconds += 44
    schedule.advance(0)
    assert schedule.epoch(17) == pytest.approx(2 * 44 / 90)
    assert schedule.rate(0) == 1, "still in the first of two nominal epochs"
    hand.seconds += 2
    schedule.advance(0)
    assert schedule.rate(0) == 0.5


def test_a_resumed_run_spreads_the_rest_over_what_is_left() -> None:
    hand = Hand()
    clock = Clock(hand)
    schedule = Schedule(tiny_run("minutes=2"), 4, clock)
    clock.resume(60)
    schedule.resume(0.4, extended=False)
    hand.seconds += 10
    schedule.reserve(10)
    schedule.advance(0)
    assert schedule.progress == pytest.approx(0.4)
    hand.seconds += 20  # of 40 that are left
    schedule.advance(0)
    assert schedule.progress == pytest.approx(0.7)


def test_a_run_with_more_time_takes_back_its_progress() -> None:
    hand = Hand()
    clock = Clock(hand)
    schedule = Schedule(tiny_run("minutes=2"), 4, clock)
    clock.resume(60)
    schedule.resume(1.0, extended=True)
    assert schedule.progress == pytest.approx(0.5)


def test_a_budget_that_is_over_before_training_leaves_none() -> None:
    hand = Hand()
    schedule = planned(hand, kept=110)
    schedule.advance(0)
    assert schedule.over


def test_a_run_by_epochs_does_not_look_at_the_clock() -> None:
    schedule = Schedule(tiny_run(), 4, Clock(Hand()))
    schedule.advance(2)
    assert schedule.progress == 0.25
    schedule.advance(8)
    assert not schedule.over
    assert schedule.epoch(1) == 1


@pytest.mark.parametrize("minutes", ["0", "-3"])
def test_a_budget_of_nothing_is_refused(minutes: str) -> None:
    with pytest.raises(ConfigError, match=r"minutes: .*a budget must be above 0 minutes"):
        tiny_run(f"minutes={minutes}")
