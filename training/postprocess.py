"""From what a network predicts to the maps a bundle gives: the one post-processing of training and export."""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from training.tasks import Kind, Task

DEPTH_RANGE = (0.1, 10.0)
"""Metres; predictions are clamped to this, and the manifest states it."""
NORMALS_FRAME = "x right, y up, z towards the camera"
"""Axes of predicted normals: a wall faced squarely is (0, 0, 1)."""


def deployment_maps(
    final: Mapping[str, Tensor], tasks: Sequence[Task], size: tuple[int, int]
) -> dict[str, Tensor]:
    """Maps at full size, fp32 inside whatever the precision of the network.

    Args:
        final: by task name, the network's prediction [B,task.channels,h,w], before any activation.
        tasks: the tasks to give, in order.
        size: height and width of the maps; predictions are resized bilinearly (``align_corners=False``).

    Returns:
        By task name: ``labels`` uint8 [B,H,W]; ``depth`` float32 [B,H,W], metres within `DEPTH_RANGE`;
        ``normals`` float32 [B,H,W,3] of unit length; ``probability`` float32 [B,H,W], 0 to 1.
    """
    maps = {}
    for task in tasks:
        resized = F.interpolate(final[task.name].float(), size, mode="bilinear", align_corners=False)
        maps[task.name] = ACTIVATIONS[task.kind](resized)
    return maps


ACTIVATIONS: dict[Kind, Callable[[Tensor], Tensor]] = {
    "labels": lambda logits: logits.argmax(dim=1).byte(),
    "depth": lambda metres: metres.squeeze(1).clamp(*DEPTH_RANGE),
    "normals": lambda vectors: F.normalize(vectors, dim=1, eps=1e-6).movedim(1, -1),
    "probability": lambda logits: logits.squeeze(1).sigmoid(),
}
"""[B,channels,H,W] predictions -> maps, for each kind of task."""
