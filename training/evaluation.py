"""Score a network on validation sources, on the very maps a bundle gives."""

from collections.abc import Sequence

import torch
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from training.config import DataConfig
from training.data import Source, build_source, collate, validate
from training.metrics import Evaluation, maps_in_other_spaces
from training.model import Network
from training.postprocess import deployment_maps
from training.tasks import Task

Report = dict[str, dict[str, float]]


def validation_sources(config: DataConfig, tasks: Sequence[Task], check: bool = True) -> list[Source]:
    """The validation sources at the network's size; every label file is read once if ``check``."""
    size = (config.height, config.width)
    sources = [build_source(source, tasks, size, None) for source in config.val]
    if check:
        validate(sources)
    return sources


@torch.no_grad()
def evaluate(
    network: Network,
    sources: Sequence[Source],
    batch_size: int,
    device: torch.device | str,
    quiet: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> Report:
    """All metrics of all tasks, pooled over the sources; the network is left in evaluation mode.

    Args:
        network: its outputs are scored as the maps a bundle gives.
        sources: fixed samples; none is dropped and none counts twice, whatever the batch size.
        batch_size: images at a time.
        device: where the network is.
        quiet: no progress bar.
        shard: rank r of R processes, each of which must call this, takes every R-th image from r on.
    """
    network.eval()
    rank, ranks = shard
    evaluation = Evaluation(network.tasks).to(device)
    for source in sources:
        own = Subset(source, range(rank, len(source), ranks))
        loader = DataLoader(own, batch_size=batch_size, collate_fn=collate)
        for batch in track(
            loader, f"validate {source.config.label}", transient=True, disable=quiet or rank > 0
        ):
            labels = {name: value.to(device) for name, value in batch.items() if name != "id"}
            images = labels.pop("image")
            final = network(images).final
            size = (images.shape[-2], images.shape[-1])
            outputs = deployment_maps(final, network.tasks, size)
            outputs |= maps_in_other_spaces(final, network.tasks, size)
            evaluation.update(outputs, labels)
    return evaluation.compute()
