"""What a network was seen to get right: inputs of its confidence heads and the outcome, at some places."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data import Batch
from training.metrics.correctness import judge
from training.model import MTCP
from training.postprocess import deployment_maps

PLACES = 400
"""Positions of the grid of predictions that are kept of an image: neighbours tell little that is new."""


@dataclass(frozen=True)
class Observations:
    """N places in images.

    Attributes:
        inputs: float16 [N, inputs], what `ConfidenceHeads.inputs` gives there.
        right: [N, T], the share of the labelled pixels around a place at which the task's map is right; T are
            all tasks of the network, or those of `of_tasks`.
        weight: [N, T], the share of the pixels around it that have a label.
        image: int64 [N], the number of its image among those that were looked at.
    """

    inputs: Tensor
    right: Tensor
    weight: Tensor
    image: Tensor

    def chosen(self, places: Tensor) -> "Observations":
        """Those at ``places``, bool [N]."""
        return Observations(self.inputs[places], self.right[places], self.weight[places], self.image[places])

    def of_tasks(self, columns: list[int]) -> "Observations":
        """What they say of the tasks in these columns alone."""
        return Observations(self.inputs, self.right[:, columns], self.weight[:, columns], self.image)

    def joined(self, others: "Observations", emphasis: float) -> "Observations":
        """These, then ``others`` with their weight times ``emphasis``; images are numbered on."""
        after = int(self.image.max()) + 1 if len(self.image) else 0
        return Observations(
            torch.cat([self.inputs, others.inputs]),
            torch.cat([self.right, others.right]),
            torch.cat([self.weight, emphasis * others.weight]),
            torch.cat([self.image, after + others.image]),
        )


@torch.inference_mode()
def observe(network: MTCP, batches: Iterable[Batch], seed: int) -> Observations:
    """`PLACES` places, chosen by ``seed``, of each image in ``batches``, which are on the network's device.

    The network has confidence heads, fitted or not, which say what they read there. It stays in evaluation
    mode; maps are judged as a bundle gives them.
    """
    network.eval()
    heads, seen = network.branches.confidence, list[Tensor]()
    assert heads is not None
    hook = heads.hidden.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    choice = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        for batch in batches:
            parts += _of_batch(network, seen, batch, choice)
    finally:
        hook.remove()
    inputs, right, weight = (torch.cat(columns) for columns in zip(*parts, strict=True))
    counts = torch.tensor([len(part[0]) for part in parts])
    return Observations(inputs, right, weight, torch.arange(len(parts)).repeat_interleave(counts))


def _of_batch(
    network: MTCP, seen: list[Tensor], batch: Batch, choice: torch.Generator
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Inputs, outcome and weight of the chosen places of each image."""
    images: Tensor = batch["image"]
    final = network(images).final
    inputs = seen.pop()
    grid = (inputs.shape[-2], inputs.shape[-1])
    maps = deployment_maps(final, network.tasks, (images.shape[-2], images.shape[-1]), images)
    rights, weights = [], []
    for task in network.tasks:
        right, known = judge(task, maps[task.name], batch[task.name])
        share, labelled = (F.adaptive_avg_pool2d(mask[:, None].float(), grid) for mask in (right, known))
        rights.append(share / labelled.clamp_min(torch.finfo().tiny))
        weights.append(labelled)
    columns = (inputs.half().flatten(2), torch.cat(rights, 1).flatten(2), torch.cat(weights, 1).flatten(2))
    found = []
    for image in range(len(images)):
        places = torch.randperm(grid[0] * grid[1], generator=choice)[:PLACES].to(images.device)
        given, right, weight = (column[image][:, places].T.cpu() for column in columns)
        found.append((given, right, weight))
    return found
