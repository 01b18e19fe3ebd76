"""The tiny bundle of `tests.mtcp_serve.support` with confidences for two of its five tasks.

That of ``semseg`` is the mean of green / 255 over 2 x 2 pixels, half as large as the maps; that of ``depth``
is blue / 255, as large as they are.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import Confidence, TaskSpec
from tests.mtcp_serve.support import GRAPH, HEIGHT, TASKS, WIDTH, make_bundle

OWN_WORDS = "the distance is right to 25 per cent"
CONFIDENCES = {
    "semseg": Confidence(output="semseg_confidence", height=HEIGHT // 2, width=WIDTH // 2),
    "depth": Confidence(output="how_sure", height=HEIGHT, width=WIDTH, criterion=OWN_WORDS),
}
CONFIDENT_TASKS: tuple[TaskSpec, ...] = tuple(
    task.model_copy(update={"confidence": CONFIDENCES.get(task.name)}) for task in TASKS
)
_OUTPUT = f"uint8[batch, {HEIGHT}, {WIDTH}] parsing)"
_OUTPUTS = f"""uint8[batch, {HEIGHT}, {WIDTH}] parsing,
    float[batch, {HEIGHT // 2}, {WIDTH // 2}] semseg_confidence, float[batch, {HEIGHT}, {WIDTH}] how_sure)"""
_LAST = "    depth_metres = Mul (metres, used)\n"
_NODES = """    green_share = Div (green3, whole)
    planes = Transpose <perm = [0, 3, 1, 2]> (green_share)
    halved = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (planes)
    plane = Constant <value_ints = [1]> ()
    semseg_confidence = Squeeze (halved, plane)
    how_sure = Div (blue, whole)
"""
CONFIDENT_GRAPH = GRAPH.replace(_OUTPUT, _OUTPUTS).replace(_LAST, _LAST + _NODES)


def make_confident_bundle(folder: Path) -> Path:
    """Write the bundle into ``folder``."""
    return make_bundle(folder, CONFIDENT_GRAPH, CONFIDENT_TASKS)


def expected_confidences(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """By the name of its task, each confidence for ``images`` [batch, `HEIGHT`, `WIDTH`, 3]."""
    green, blue = (images[..., channel] / 255 for channel in (1, 2))
    blocks = green.reshape(len(images), HEIGHT // 2, 2, WIDTH // 2, 2)
    return {"semseg": blocks.mean((2, 4)), "depth": blue}
