"""The batches of a run: which samples, in which order, and which of them this rank sees."""

from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from training.config import ConfigError, RunConfig
from training.data import Batch, Mixture, MixtureSampler, build_source, collate, validate
from training.distributed import ShardSampler


class Feed:
    """Batches by epoch and step alone, so that a run can go on anywhere; sizes follow ``data.progressive``.

    Raises:
        ConfigError, DataError: before the first batch; every label file is read once if ``check``.
    """

    def __init__(self, config: RunConfig, fabric: Fabric, check: bool = True) -> None:
        self.config, self.fabric, self._check = config, fabric, check
        self._size: tuple[int, int] | None = None
        self.prepare(0)

    def prepare(self, epoch: int) -> None:
        """Build the sources at the size of ``epoch``."""
        data, size = self.config.data, self.config.data.size_at(epoch)
        if size == self._size:
            return
        sources = [build_source(source, self.config.tasks, size, data.augment) for source in data.train]
        if self._size is None and self._check:
            validate(sources)
        self._size = size
        self.mixture = Mixture(sources)
        samples = len(self.sampler(0, 0))
        if samples < self.fabric.world_size:
            raise ConfigError(f"an epoch of {samples} samples is too short for this many devices")
        self.steps_per_epoch = max(1, samples // data.batch_size)
        self._drop_last = samples >= data.batch_size

    def sampler(self, epoch: int, start: int, stream: int = 0) -> MixtureSampler:
        """The global order of ``epoch`` from step ``start`` on; each ``stream`` has its own."""
        data = self.config.data
        seed = self.config.seed + stream * 2**32
        sampler = MixtureSampler(self.mixture, seed, data.batch_size, data.samples_per_epoch)
        sampler.set_epoch(epoch, start)
        return sampler

    def batches(self, epoch: int, start: int, stream: int = 0) -> Iterator[Batch]:
        """This rank's part of each batch of ``epoch`` from step ``start`` on, on the run's device."""
        data, ranks = self.config.data, self.fabric.world_size
        order = self.sampler(epoch, start, stream)
        loader = DataLoader(
            self.mixture,
            data.batch_size // ranks,
            sampler=ShardSampler(order, data.batch_size, self.fabric.global_rank, ranks),
            num_workers=data.workers,
            collate_fn=collate,
            drop_last=self._drop_last,
            pin_memory=self.fabric.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # keys carry the randomness
        )
        for batch in loader:
            yield self.fabric.to_device(batch)
