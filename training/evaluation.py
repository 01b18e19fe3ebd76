"""Score networks on validation sources, on the very maps a bundle gives."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from training.bilinear import resized
from training.config import DataConfig
from training.data import Batch, Sample, Source, build_source, collate, validate
from training.metrics import Evaluation, Report, maps_in_other_spaces
from training.model import Network
from training.postprocess import confidence_maps, deployment_maps
from training.tasks import Task

E = TypeVar("E", bound=Evaluation)

_REHEARSED = 3
"""Batches of a rehearsal: the first shows what beginning costs, the others what each costs."""


def validation_sources(config: DataConfig, tasks: Sequence[Task], check: bool = True) -> list[Source]:
    """The validation sources at the network's size; every label file is read once if ``check``."""
    size = (config.height, config.width)
    sources = [build_source(source, tasks, size, None) for source in config.val]
    if check:
        validate(sources, max(2, config.workers))
    return sources


@dataclass(frozen=True)
class Validation:
    """How to score: on which images, in what portions, where.

    Args:
        sources: fixed samples; none is dropped and none counts twice, whatever the batch size.
        batch_size: images at a time.
        device: where the networks are.
        workers: processes that load.
        quiet: no progress bar.
        shard: rank r of R processes, each of which must call this, takes every R-th image from r on.
        every: 2 scores every second image, and so on.
        per_class: also the IoU of each class.
        plain: maps that are only resized, without the guided filter that a bundle has.
    """

    sources: Sequence[Source | Subset[Sample]]
    batch_size: int
    device: torch.device | str
    workers: int = 0
    quiet: bool = False
    shard: tuple[int, int] = (0, 1)
    every: int = 1
    per_class: bool = False
    plain: bool = False

    @property
    def images(self) -> int:
        """How many images all ranks score together."""
        return len(range(0, sum(map(len, self.sources)), self.every))

    @torch.no_grad()
    def score(self, networks: Mapping[str, Network]) -> dict[str, Report]:
        """All metrics of all tasks by name of the network, pooled over the sources."""
        found = self.evaluations(list(networks.values()), Evaluation)
        return {name: each.compute() for name, each in zip(networks, found, strict=True)}

    @torch.no_grad()
    def evaluations(self, networks: Sequence[Network], kind: type[E]) -> list[E]:
        """For each network one of ``kind`` that has seen every image.

        Each image is loaded once for all networks, which are left in evaluation mode.
        """
        evaluations = [
            kind(network.eval().tasks, self.per_class, network.confident).to(self.device)
            for network in networks
        ]
        for batch in self.batches():
            for evaluation, network in zip(evaluations, networks, strict=True):
                _add(evaluation, network, batch, self.plain)
        return evaluations

    @torch.no_grad()
    def seconds(self, networks: Mapping[str, Network]) -> float:
        """About how long :meth:`score` would take this rank, by the first batches; cautiously so."""
        if not self.images:
            return 0.0
        marks = [time.monotonic()]
        for batch in self.batches(_REHEARSED):
            for network in networks.values():
                evaluation = Evaluation(network.eval().tasks, confident=network.confident).to(self.device)
                _add(evaluation, network, batch, self.plain)
                evaluation.compute()
            marks.append(time.monotonic())
        first, rest = marks[1] - marks[0], marks[-1] - marks[1]
        each = rest / (len(marks) - 2) if len(marks) > 2 else first
        batches = math.ceil(self.images / self.shard[1] / self.batch_size)
        rounds = math.ceil(batches / max(1, self.workers))  # several workers begin at the same time
        return max(first + each * (batches - 1), first * rounds)

    def batches(self, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Batches on the device, at most ``limit`` of them."""
        if not self.images:
            return
        samples = ConcatDataset[Sample](self.sources)
        rank, ranks = self.shard
        chosen = range(0, len(samples), self.every)[rank::ranks]
        if limit is not None:
            chosen = chosen[: limit * self.batch_size]
        loader = DataLoader(
            Subset(samples, chosen),
            batch_size=self.batch_size,
            collate_fn=collate,
            num_workers=min(self.workers, math.ceil(len(chosen) / self.batch_size)),
            pin_memory=torch.device(self.device).type == "cuda",
        )
        for batch in track(
            loader, "validate", transient=True, disable=self.quiet or rank > 0 or limit is not None
        ):
            yield on_device(batch, self.device)


def _add(evaluation: Evaluation, network: Network, batch: Mapping[str, Tensor], plain: bool) -> None:
    labels = dict(batch)
    images = labels.pop("image")
    predictions = network(images)
    final = predictions.final
    size = (images.shape[-2], images.shape[-1])
    guide = None if plain else images
    maps = deployment_maps(final, network.tasks, size, guide)
    maps |= maps_in_other_spaces(final, network.tasks, size, guide, labels)
    confidences = confidence_maps(predictions.confidence)
    sized = {name: resized(values[:, None], size)[:, 0] for name, values in confidences.items()}
    evaluation.update(maps, labels, sized)


def on_device(batch: Batch, device: torch.device | str) -> dict[str, Tensor]:
    """Images and labels on ``device``, half-precision labels as float32 from there on."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items() if name != "id"}
    return {name: value.float() if value.is_floating_point() else value for name, value in moved.items()}
