"""Run by two processes in test_devices: trains on joint batches, resumes, skips a broken loss together."""

import sys
from pathlib import Path

import torch

from tests.training.tiny import tiny_run
from training.balancing import StepResult
from training.config import RunConfig
from training.data import Batch
from training.trainer import Trainer

OVERRIDES = (
    "~model.tasks.saliency",
    "~model.tasks.parsing",
    "data.train.0.read=[semseg,depth,normals]",
    "data.batch_size=4",
    "data.samples_per_epoch=12",
    "checkpoint_every=1",
    "epochs=2",
    "optim.lr=0.005",
    "optim.accumulate=2",
    "optim.ema=0.9",
)
"""Only losses that are means over pixels: saliency and disparity look at a rank's images as a whole."""


def config(ranks: int) -> RunConfig:
    """Three tasks, accumulation, a weight average, a method with parameters and a Gramian."""
    return tiny_run(*OVERRIDES, "~balancer.options", "balancer.name=gradnorm", f"devices={ranks}")


def freeze_norms(network: torch.nn.Module) -> None:
    """Keep batch norms in evaluation mode: their statistics would be of a rank's own images."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, norm=module: norm  # type: ignore[method-assign, misc]


def trainer(run: Path, ranks: int) -> Trainer:
    """A trainer with frozen norms.

    AdamW divides a gradient by its own size, so where that is rounding noise, its sign would decide an
    update; a large epsilon makes updates proportional to gradients.
    """
    made = Trainer(config(ranks), run)
    freeze_norms(made.network)
    for group in made.optimizer.param_groups:
        group["eps"] = 1.0
    return made


class Stopped(Exception):  # noqa: N818
    """The stand-in for a power cut."""


def stop_at(made: Trainer, step: int) -> None:
    """Let the run die in ``step``."""
    original = made._train_step

    def dying(batch: Batch) -> StepResult:
        if made.step == step:
            raise Stopped
        return original(batch)

    made._train_step = dying  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Three runs on the same two processes."""
    trainer(folder / "two", 2).train()
    cut = trainer(folder / "cut", 2)
    stop_at(cut, 4)
    try:
        cut.train()
    except Stopped:
        cut.fabric.barrier()
    resumed = trainer(folder / "cut", 2)
    assert resumed.resume()
    assert 0 < resumed.step <= 4
    resumed.train()
    broken = trainer(folder / "broken", 2)
    objective = broken.objective._losses

    def poisoned(*given: object, final: bool = False) -> list[torch.Tensor]:
        losses = objective(*given, final=final)  # type: ignore[arg-type, misc]
        bad = broken.fabric.global_rank == 1 and broken.step in (0, 1)
        return [loss * torch.nan for loss in losses] if bad else losses

    broken.objective._losses = poisoned  # type: ignore[method-assign, assignment]
    before = [parameter.clone() for parameter in broken.network.parameters()]
    for batch, _ in zip(broken.feed.batches(0, 0), range(2), strict=False):
        assert not broken._train_step(batch).finite
    assert broken.bad_steps == 2
    assert all(torch.equal(a, b) for a, b in zip(before, broken.network.parameters(), strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
