"""Validating the weights of a run: which of them, how many images, shared among the ranks."""

from collections.abc import Sequence

from lightning_fabric import Fabric

from training.average import WeightAverage
from training.config import RunConfig
from training.data import Source
from training.distributed import share_buffers
from training.evaluation import Validation
from training.metrics import Report
from training.model import Network
from training.weight_choice import AVERAGE, RAW


class Scoring:
    """Scores ``network`` and, where there is one, its ``average`` on ``sources``."""

    def __init__(
        self,
        config: RunConfig,
        fabric: Fabric,
        sources: Sequence[Source],
        network: Network,
        average: WeightAverage | None,
    ) -> None:
        self._data, self._fabric, self._sources = config.data, fabric, sources
        self._network, self._average = network, average
        self.every = 1
        """Score one in so many images."""

    @property
    def best(self) -> Network:
        """The weights to validate and ship: the average where there is one."""
        return self._network if self._average is None else self._average.module

    @property
    def shipped(self) -> str:
        """Which weights :attr:`best` are."""
        return RAW if self._average is None else AVERAGE

    def validation(self) -> Validation:
        """This rank's share of the images."""
        fabric, data = self._fabric, self._data
        shard = (fabric.global_rank, fabric.world_size)
        return Validation(
            self._sources, data.batch_size, fabric.device, data.workers, shard=shard, every=self.every
        )

    def seconds(self) -> float:
        """About how long validating all weights takes."""
        return self.validation().seconds(self._networks())

    def score(self, raw_too: bool) -> dict[str, Report]:
        """All metrics by the weights, ``raw`` and ``average``; the raw ones beside an average if ``raw_too``.

        Each rank must call this.
        """
        networks = self._networks()
        if AVERAGE in networks and not raw_too:
            del networks[RAW]
        for network in networks.values():
            share_buffers(self._fabric, network)
        return self.validation().score(networks)

    def _networks(self) -> dict[str, Network]:
        return {RAW: self._network} if self._average is None else {AVERAGE: self.best, RAW: self._network}
