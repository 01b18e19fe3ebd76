"""Several sources as one data set, drawn in fixed shares by a sampler that can resume anywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from training.data.balance import sampling_factors
from training.data.errors import SourceError
from training.data.sample import Sample, SampleKey
from training.data.sources import Source

_GOLDEN = (5**0.5 - 1) / 2


class Mixture(Dataset[Sample]):
    """The sources of a training run; a :class:`SampleKey` names a sample, so any worker makes the same one.

    Attributes:
        masses: for each source, how often to draw each image relative to the others of the whole mixture:
            float arrays of the sources' lengths.

    Raises:
        SourceError: no source, or no weight on any.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.masses = [source.config.weight * sampling_factors(source) for source in self.sources]
        if not sum(mass.sum() for mass in self.masses) > 0:
            raise SourceError("the mixture is empty: give it a source with a weight above 0")

    def __getitem__(self, key: SampleKey) -> Sample:
        return draw(self.sources, key)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)


def draw(sources: Sequence[Source], key: SampleKey) -> Sample:
    """The sample of ``sources`` that ``key`` names, with the objects of its donor where it has one."""
    source = sources[key.source]
    sample = source.sample(key.index, key.seed)
    if key.donor is None:
        return sample
    assert source.paste is not None
    return source.paste(sample, draw(sources, key.donor))


class MixtureSampler(Sampler[SampleKey]):
    """The order of an epoch: keys that depend on (``seed``, epoch) only, from any batch on.

    Shares are kept in every stretch of the epoch, not only in its total: draws of one source are spread
    evenly, and within a source an image is drawn its expected number of times, rounded up or down. Those that
    one epoch leaves out are next in the following ones, so that short epochs cover a source evenly too.

    Args:
        mixture: what to draw from.
        seed: start of all randomness.
        batch_size: samples a batch, the unit of ``start``.
        samples_per_epoch: None: as many as draw an image of weight and factor 1 once.
        paste: share of the samples with a donor, which is another look at any sample of the epoch.
    """

    def __init__(
        self,
        mixture: Mixture,
        seed: int,
        batch_size: int,
        samples_per_epoch: int | None = None,
        paste: float = 0.0,
    ) -> None:
        self._masses = mixture.masses
        self._seed = seed
        self._batch_size = batch_size
        self._paste = paste
        total = sum(mass.sum() for mass in self._masses)
        self._samples = max(1, round(total)) if samples_per_epoch is None else samples_per_epoch
        self.set_epoch(0)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Iterate over ``epoch`` from batch ``start`` on: the tail of the full epoch."""
        self._epoch = epoch
        self._first = start * self._batch_size

    def __len__(self) -> int:
        return max(0, self._samples - self._first)

    def __iter__(self) -> Iterator[SampleKey]:
        yield from self._order()[self._first :]

    def _order(self) -> list[SampleKey]:
        rng = np.random.default_rng((self._seed, self._epoch))
        totals = np.array([mass.sum() for mass in self._masses])
        counts = _shares(totals, self._samples, rng)
        drawn = [self._draw(source, count) for source, count in enumerate(counts)]
        position = np.concatenate([_spread(count, rng) for count in counts])
        source = np.repeat(np.arange(len(counts)), counts)
        index = np.concatenate([rng.permutation(indices) for indices in drawn])
        seeds = rng.integers(2**63, size=len(index))
        order = np.argsort(position, kind="stable")
        keys = [
            SampleKey(*key)
            for key in zip(source[order].tolist(), index[order].tolist(), seeds.tolist(), strict=True)
        ]
        return self._with_donors(keys, rng) if self._paste else keys

    def _with_donors(self, keys: list[SampleKey], rng: np.random.Generator) -> list[SampleKey]:
        """``keys``, of which a share has another as its donor: donors are drawn as often as samples are."""
        donors = rng.permutation(len(keys))
        seeds = rng.integers(2**63, size=len(keys)).tolist()
        chosen = rng.random(len(keys)) < self._paste
        return [
            replace(key, donor=replace(keys[donor], seed=seed)) if paste else key
            for key, donor, seed, paste in zip(keys, donors, seeds, chosen, strict=True)
        ]

    def _draw(self, source: int, count: int) -> NDArray[np.int64]:
        """``count`` indices of a source, each its expected number of times rounded up or down.

        Systematic sampling: equidistant points on the line of all masses, in an order that the seed sets.
        From one epoch to the next the points move by the golden ratio, whose multiples never bunch.
        """
        mass = self._masses[source]
        rng = np.random.default_rng((self._seed, source, 1))
        shuffled = rng.permutation(len(mass))
        edges = np.cumsum(mass[shuffled])
        offset = (rng.random() + self._epoch * _GOLDEN) % 1
        points = (np.arange(count) + offset) * (edges[-1] / max(1, count))
        picked = np.searchsorted(edges, points, side="right").clip(max=len(mass) - 1)
        drawn: NDArray[np.int64] = shuffled[picked]
        return drawn


def _shares(totals: NDArray[np.float64], samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``samples`` divided in proportion to ``totals``, fractions rounded up or down at random."""
    edges = np.cumsum(totals) / totals.sum() * samples
    edges[-1] = samples
    rounded = np.floor(edges + rng.random() * (edges < samples)).astype(np.int64)
    counts: NDArray[np.int64] = np.diff(rounded, prepend=0)
    return counts


def _spread(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``count`` positions in 0..1, one in each of as many equal stretches."""
    positions: NDArray[np.float64] = (np.arange(count) + rng.random(count)) / max(1, count)
    return positions
