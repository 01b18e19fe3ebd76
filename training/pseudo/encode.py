"""Maps as files of a partial-label folder (see :mod:`training.data.folder`)."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec
from mtcp_serve.kinds.base import Map
from training.label_spaces import IGNORE_LABEL

Mask = NDArray[np.bool_]


def folder_name(task: TaskSpec) -> str:
    """The folder of a task's labels: its name, but relative depth is ``disparity``."""
    return "disparity" if isinstance(task, DepthTask) and not task.metric else task.name


def encode(task: TaskSpec, values: Map, valid: Mask) -> bytes:
    """A PNG of ``values`` [H, W] (normals: [H, W, 3]) with no label where ``valid`` [H, W] is false."""
    buffer = BytesIO()
    ENCODERS[task.kind](task, values, valid).save(buffer, "PNG")
    return buffer.getvalue()


def _labels(task: LabelsTask, values: Map, valid: Mask) -> Image.Image:
    return Image.fromarray(np.where(valid, values, IGNORE_LABEL).astype(np.uint8))


def _depth(task: DepthTask, values: Map, valid: Mask) -> Image.Image:
    if task.metric:
        millimetres = np.rint(values * 1000).clip(1, 65535)
        return Image.fromarray(np.where(valid, millimetres, 0).astype(np.uint16))
    inverse = 1 / np.maximum(values, 1e-6)
    nearest = inverse[valid].max(initial=1e-6)
    return Image.fromarray(np.where(valid, np.rint(255 * inverse / nearest).clip(1, 255), 0).astype(np.uint8))


def _normals(task: NormalsTask, values: Map, valid: Mask) -> Image.Image:
    return Image.fromarray(np.rint((values + 1) * 127.5 * valid[..., None]).clip(0, 255).astype(np.uint8))


def _probability(task: ProbabilityTask, values: Map, valid: Mask) -> Image.Image:
    grey = np.rint(255 * values).clip(0, 255)
    return Image.fromarray(np.stack([grey * valid, 255 * valid], -1).astype(np.uint8))


ENCODERS: dict[str, Callable[[Any, Map, Mask], Image.Image]] = {
    "labels": _labels,
    "depth": _depth,
    "normals": _normals,
    "probability": _probability,
}
"""The file of a map of each kind of task."""
