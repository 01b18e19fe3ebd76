"""Training images again after training, for what is measured with a network that stays as it is."""

from collections.abc import Iterator

import torch
from rich.progress import track
from torch.utils.data import DataLoader

from training.config import RunConfig
from training.data import AugmentConfig, Batch, Mixture, MixtureSampler, build_source, collate
from training.evaluation import on_device

BATCH = 8
"""Images at a time: one pass without gradients is no faster with more."""


def training_views(
    config: RunConfig,
    images: int,
    augment: AugmentConfig | None,
    device: torch.device | str,
    quiet: bool = False,
) -> Iterator[Batch]:
    """Batches of ``images`` views of training images, drawn in the shares of the run, on ``device``.

    Args:
        config: of the run, with the sources where they are now.
        images: how many; a shorter mixture is begun again.
        augment: random changes, but nothing is pasted; None: images as a server looks at them.
        device: where the batches are to be.
        quiet: no progress bar.

    Raises:
        DataError: a source or label that cannot be used.
    """
    data = config.data
    size = (data.height, data.width)
    mixture = Mixture([build_source(source, config.tasks, size, augment) for source in data.train])
    loader = DataLoader(
        mixture,
        batch_size=BATCH,
        sampler=MixtureSampler(mixture, config.seed, BATCH, images),
        collate_fn=collate,
        num_workers=data.workers,
        generator=torch.Generator().manual_seed(0),  # keys carry the randomness
    )
    for batch in track(loader, "observe", transient=True, disable=quiet):
        yield on_device(batch, device)
