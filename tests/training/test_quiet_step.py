"""A step never asks the device: shown on a CPU by refusing every operator that would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from tests.training.quiet_device import DeviceAskedError, QuietDevice
from tests.training.tiny import tiny_run
from training.trainer import Trainer


def unwatched(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` past the mode."""

    def run(*inputs: Any) -> Any:
        with _disable_current_modes():
            return function(*inputs)

    return run


@pytest.mark.parametrize("method", ["lps", "equal", "uncertainty", "imtl_l", "dwa"])
def test_losses_balancing_backward_and_update_are_quiet(method: str, tmp_path: Path) -> None:
    trainer = Trainer(
        tiny_run("optim.ema=0.9", "~balancer.options", f"balancer.name={method}", "optim.accumulate=2"),
        tmp_path,
    )
    trainer._read_every = 100
    trainer.network.train()
    # the encoder has a test of its own
    trainer.forward_step._encode = unwatched(trainer.forward_step._encode)
    first, second, *_ = trainer.feed.batches(0, 0)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    with QuietDevice():
        trainer._train_step(first)
        trainer._train_step(second)
    assert len(trainer._records) == 2
    trainer._read_back()
    assert trainer._tally.skipped == trainer.bad_steps == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.to("meta"),
        lambda x: torch.masked_select(x, x > 0),
    ],
)
def test_what_would_wait_is_refused(ask: Callable[[torch.Tensor], Any]) -> None:
    with QuietDevice(), pytest.raises(DeviceAskedError):
        ask(torch.ones(3))
