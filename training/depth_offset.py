"""Metric depth shifted to where it is nearest to its labels, once a network is trained.

A network is trained on batches whose statistics its norms use, on cut-outs and on several cameras, and is
served whole images with running statistics: metres that were right on average may all be a little too far.
One number, the bias of depth's last layer, mends that, and the shape of the map stays as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data import Batch
from training.model import MTCP, Network
from training.postprocess import DEPTH_RANGE, deployment_maps
from training.tasks import INVALID_DEPTH, Task

_ROUNDING = 1e-4  # of metres that were clamped, then filtered as logarithms


class NoMetricDepthError(ValueError):
    """Nothing says how far to shift: no task of depth, no image with metres, or only clamped depth."""


@dataclass(frozen=True)
class DepthOffset:
    """What was measured over all labelled pixels.

    Attributes:
        bias: mean of prediction minus label before, metres.
        added: to the bias of depth's last layer, metres.
        images: how many images had labels.
    """

    bias: float
    added: float
    images: int


@torch.no_grad()
def shift_depth(network: Network, batches: Iterable[Batch]) -> DepthOffset:
    """Add to the bias of depth's last layer, in place, what makes the squared error least.

    That is one Gauss-Newton step: with d = softplus(z) a map changes by 1 - exp(-d) times what z does,
    without an activation by as much. Maps are compared as a bundle gives them.

    Args:
        network: a trained one, put into evaluation mode.
        batches: with images and labels, on the network's device; those without metres are passed over.

    Raises:
        NoMetricDepthError: the network has no task of depth, no batch a label in metres, or all depth that
            has one is clamped to an end of `DEPTH_RANGE`, where the bias changes nothing.
    """
    task = next((task for task in network.tasks if task.kind == "depth"), None)
    if task is None:
        raise NoMetricDepthError("the network has no task of depth to shift")
    network.eval()
    pixels = bias = slope = curvature = 0.0
    images = 0
    for batch in batches:
        found = _errors(network, task, batch)
        if found is None:
            continue
        error, change, labelled = found
        images += labelled
        pixels += error.numel()
        bias += float(error.sum())
        slope += float((error * change).sum())
        curvature += float(change.square().sum())
    if not pixels:
        raise NoMetricDepthError("no training image that was looked at has a label in metres; look at more")
    if not curvature:
        raise NoMetricDepthError(
            f"all depth that has labels, in {images} images, is clamped to {DEPTH_RANGE[0]:g} or "
            f"{DEPTH_RANGE[1]:g} m, where a shift changes nothing; train the network further"
        )
    network.output_bias(task.name).sub_(slope / curvature)
    return DepthOffset(bias / pixels, -slope / curvature, images)


def _errors(network: Network, task: Task, batch: Batch) -> tuple[Tensor, Tensor, int] | None:
    """Errors [N] of the labelled pixels, their change by that of the bias, and the images they are of."""
    labels = batch.get(task.name)
    if labels is None:
        return None
    known = labels[:, 0] > INVALID_DEPTH
    chosen = known.flatten(1).any(1)
    if not chosen.any():
        return None
    pictures, known = batch["image"][chosen], known[chosen]
    final = network(pictures).final
    size = (pictures.shape[-2], pictures.shape[-1])
    metres = deployment_maps(final, [task], size, pictures)[task.name][known].double()
    softplus = isinstance(network, MTCP) and network.config.depth_activation == "softplus"
    change = 1 - (-metres).exp() if softplus else torch.ones_like(metres)
    change[(metres <= DEPTH_RANGE[0] * (1 + _ROUNDING)) | (metres >= DEPTH_RANGE[1] * (1 - _ROUNDING))] = 0
    return metres - labels[chosen][:, 0][known].double(), change, int(chosen.sum())
