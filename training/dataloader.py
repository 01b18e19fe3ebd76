"""The batches of a run: which samples, in which order and size, and which of them this rank sees."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.config import ConfigError, RunConfig
from training.data import (
    Batch,
    Mixture,
    MixtureSampler,
    Sample,
    SampleKey,
    Source,
    build_source,
    collate,
    draw,
    validate,
)
from training.distributed import ShardSampler

Size = tuple[int, int]
SizedKey = tuple[Size, SampleKey]

PINNED_BYTES = 2**31
"""Page-locked memory that batches on their way to a GPU may take on a rank."""


class SizedMixture(Dataset[Sample]):
    """The samples of a mixture at any of the sizes of a run, so that its workers live as long as it does."""

    def __init__(self, sources: Mapping[Size, Sequence[Source]]) -> None:
        self._sources = sources

    def __getitem__(self, key: SizedKey) -> Sample:
        size, sample = key
        return draw(self._sources[size], sample)


class Feed:
    """Batches by epoch and step alone, so that a run can go on anywhere; sizes follow ``data.progressive``.

    The loader's workers start with the first batch and stay for all epochs: while one epoch ends they
    prepare the next.

    Args:
        config: of the run.
        fabric: the ranks and the device.
        check: read every label file once.
        position: the nominal epoch, for ``data.progressive``, of an epoch that begins now; None: itself.

    Raises:
        ConfigError, DataError: before the first batch.
    """

    def __init__(
        self,
        config: RunConfig,
        fabric: Fabric,
        check: bool = True,
        position: Callable[[int], float] | None = None,
    ) -> None:
        self.config, self.fabric = config, fabric
        self._position = position or float
        data = config.data
        first = data.size_at(0)
        sources = {
            size: [build_source(source, config.tasks, size, data.augment) for source in data.train]
            for size in sorted(data.sizes)
        }
        if check:
            validate(sources[first], max(2, data.workers))
        self.mixture = Mixture(sources[first])
        self._samples = SizedMixture(sources)
        samples = len(self.sampler(0, 0))
        if samples < fabric.world_size:
            raise ConfigError(f"an epoch of {samples} samples is too short for this many devices")
        self.steps_per_epoch = max(1, samples // data.batch_size)
        self._running: dict[int, tuple[int, int, Iterator[Batch]]] = {}

    def sampler(self, epoch: int, start: int, stream: int = 0) -> MixtureSampler:
        """The global order of ``epoch`` from step ``start`` on; each ``stream`` has its own."""
        data = self.config.data
        seed = self.config.seed + stream * 2**32
        paste = data.augment.paste.probability if data.augment.paste else 0.0
        sampler = MixtureSampler(self.mixture, seed, data.batch_size, data.samples_per_epoch, paste)
        sampler.set_epoch(epoch, start)
        return sampler

    def batches(self, epoch: int, start: int, stream: int = 0) -> Iterator[Batch]:
        """This rank's part of each batch of ``epoch`` from step ``start`` on, on the run's device.

        Batches that follow the ones before come from the workers that run already.
        """
        at = self._running.pop(stream, None)
        loaded = at[2] if at is not None and at[:2] == (epoch, start) else self._loaded(epoch, start, stream)
        del at
        for step in range(start, self.steps_per_epoch):
            batch = next(loaded)
            last = step + 1 == self.steps_per_epoch
            self._running[stream] = (epoch + 1, 0, loaded) if last else (epoch, step + 1, loaded)
            yield self.fabric.to_device(batch)

    def examples(self) -> dict[Size, Batch]:
        """A batch of each size on the run's device, of one sample over and over."""
        part = self.config.data.batch_size // self.fabric.world_size
        key = next(iter(self.sampler(0, 0)))
        sizes = sorted(self.config.data.sizes)
        return {size: self.fabric.to_device(collate([self._samples[size, key]] * part)) for size in sizes}

    def close(self) -> None:
        """Let the workers go; batches asked for later start new ones."""
        self._running.clear()

    def _loaded(self, epoch: int, start: int, stream: int) -> Iterator[Batch]:
        workers = self.config.data.workers
        keys = self._keys(epoch, start, stream)
        on_gpu = self.fabric.device.type == "cuda"
        return iter(
            DataLoader(
                self._samples,
                batch_sampler=_Endless(keys),
                num_workers=workers,
                collate_fn=collate,
                pin_memory=on_gpu,
                generator=torch.Generator().manual_seed(0),  # keys carry the randomness
                prefetch_factor=self._prefetch(workers) if workers and on_gpu else None,
            )
        )

    def _prefetch(self, workers: int) -> int:
        """Batches a worker prepares ahead, 1 to 4: all of them together stay within `PINNED_BYTES`."""
        sample = self._samples[max(self.config.data.sizes, key=math.prod), next(iter(self.sampler(0, 0)))]
        size = sum(value.nbytes for value in sample.values() if isinstance(value, Tensor))
        batch = size * self.config.data.batch_size // self.fabric.world_size
        return min(4, max(1, PINNED_BYTES // (batch * workers)))

    def _keys(self, epoch: int, start: int, stream: int) -> Iterator[list[SizedKey]]:
        """The keys of each of this rank's batches, epoch after epoch, without incomplete last ones."""
        batch_size, ranks = self.config.data.batch_size, self.fabric.world_size
        part = batch_size // ranks
        while True:
            order = self.sampler(epoch, start, stream)
            size = self.config.data.size_at(self._position(epoch))
            keys = list(ShardSampler(order, batch_size, self.fabric.global_rank, ranks))
            for step in range(self.steps_per_epoch - start):
                yield [(size, key) for key in keys[step * part : (step + 1) * part]]
            epoch, start = epoch + 1, 0


class _Endless:
    """A batch sampler over an iterator, which a loader goes through once."""

    def __init__(self, keys: Iterator[list[SizedKey]]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[SizedKey]]:
        return self._keys
