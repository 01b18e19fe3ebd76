"""From what a network predicts to the maps a bundle gives: the one post-processing of training and export."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from training.bilinear import resized
from training.guided_filter import upsample
from training.tasks import Kind, Task

DEPTH_RANGE = (0.1, 10.0)
"""Metres; predictions are clamped to this, and the manifest states it."""
NORMALS_FRAME = "x right, y up, z towards the camera"
"""Axes of predicted normals: a wall faced squarely is (0, 0, 1)."""
CANDIDATES = 16
"""Classes of an image that are told apart at its edges: those that win, or nearly so, in most places."""
EPSILONS: dict[Kind, float] = {"depth": 3e-2}
"""Where it is not that of `training.guided_filter`: fine texture of the image is no relief of a surface."""
UNREFINED = ("edges",)
"""Tasks whose maps are lines, which a filter over areas would blur."""


def deployment_maps(
    final: Mapping[str, Tensor],
    tasks: Sequence[Task],
    size: tuple[int, int],
    images: Tensor | None = None,
) -> dict[str, Tensor]:
    """Maps at full size, fp32 inside whatever the precision of the network.

    Args:
        final: by task name, the network's prediction [B,task.channels,h,w], before any activation.
        tasks: the tasks to give, in order.
        size: height and width of the maps; predictions are resized bilinearly (``align_corners=False``).
        images: RGB [B,3,H,W] in 0..255, for edges of labels, depth and probabilities that follow those of
            the images (`training.guided_filter`); None: they are only resized.

    Returns:
        By task name: ``labels`` uint8 [B,H,W]; ``depth`` float32 [B,H,W], metres within `DEPTH_RANGE`;
        ``normals`` float32 [B,H,W,3] of unit length; ``probability`` float32 [B,H,W], 0 to 1.
    """
    values = {task.name: final[task.name].float() for task in tasks}
    if images is None:
        return {task.name: ACTIVATIONS[task.kind](resized(values[task.name], size)) for task in tasks}
    refined = {task.name: task for task in tasks if task.kind in REFINED and task.name not in UNREFINED}
    classes = {}
    for task in tasks:
        if task.kind == "labels" and task.channels > CANDIDATES:
            classes[task.name], values[task.name] = _candidates(values[task.name])
    filtered = upsample(
        {name: REFINED[task.kind][0](values[name]) for name, task in refined.items()},
        size,
        images,
        {name: EPSILONS[task.kind] for name, task in refined.items() if task.kind in EPSILONS},
    )
    maps = {}
    for task in tasks:
        if task.name not in refined:
            maps[task.name] = ACTIVATIONS[task.kind](resized(values[task.name], size))
            continue
        found = filtered[task.name]
        if task.name in classes:
            place = found.argmax(dim=1)
            maps[task.name] = classes[task.name].gather(1, place.flatten(1)).view_as(place).byte()
        else:
            maps[task.name] = REFINED[task.kind][1](found)
    return maps


def confidence_maps(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By task name, logits [B,1,h,w] of a network's confidence -> probabilities float32 [B,h,w].

    They stay at the size of the network's predictions: who shows them resizes them.
    """
    return {name: value.float().squeeze(1).sigmoid() for name, value in logits.items()}


def _candidates(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [B,K] of the `CANDIDATES` of logits [B,C,h,w], and their logits [B,K,h,w].

    Where a class is less than 1 behind the likeliest counts by how much.
    """
    close = (logits - logits.amax(1, keepdim=True) + 1).relu().mean((2, 3))
    classes = close.topk(CANDIDATES, 1).indices
    chosen = classes[:, :, None, None].expand(-1, -1, *logits.shape[2:])
    return classes, logits.gather(1, chosen)


def _shares(logits: Tensor) -> Tensor:
    """Softmax over the classes of logits [B,C,h,w]; as one operator ONNX Runtime moves them about."""
    likely = (logits - logits.amax(1, keepdim=True)).exp()
    return likely / likely.sum(1, keepdim=True)


ACTIVATIONS: dict[Kind, Callable[[Tensor], Tensor]] = {
    "labels": lambda logits: logits.argmax(dim=1).byte(),
    "depth": lambda metres: metres.squeeze(1).clamp(*DEPTH_RANGE),
    "normals": lambda vectors: (vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)).movedim(1, -1),
    "probability": lambda logits: logits.squeeze(1).sigmoid(),
}
"""[B,channels,H,W] predictions -> maps, for each kind of task."""

REFINED: dict[Kind, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "labels": (_shares, ACTIVATIONS["labels"]),
    "depth": (
        lambda metres: metres.clamp(*DEPTH_RANGE).log(),
        lambda logs: ACTIVATIONS["depth"](logs.exp()),
    ),
    "probability": (lambda logits: logits, ACTIVATIONS["probability"]),
}
"""Predictions [B,channels,h,w] -> what is filtered, and filtered [B,channels,H,W] -> maps, for each kind of
task whose edges are those of the image. Normals came out worse."""
