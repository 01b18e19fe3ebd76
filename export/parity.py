"""Whether ONNX Runtime gives the maps that PyTorch gives, judged task by task on photos.

The limits are on percentiles, not on the largest difference: the decoder of Mask2Former thresholds its
attention masks, so that a rounding error may flip a few pixels of a right graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.errors import ParityError
from export.graph import DeploymentGraph
from export.photos import Photo
from mtcp_serve.manifest import IMAGE_TENSOR
from training.tasks import Kind

BATCHES = (1, 3)
"""Batch sizes to run the graph with; two of them prove that its batch is dynamic."""
LABEL_AGREEMENT = 0.999
RELATIVE_ERROR = 1e-3
"""Limit of the 99th percentile of the relative error of depth, normals and probabilities."""
LEAST_PROBABILITY = 1 / 255
"""Errors of smaller probabilities are relative to this: an 8-bit map shows no difference among them."""

Map = NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """How one task agrees at one batch size: ``figures`` by name, and what is wrong (None if nothing is)."""

    figures: dict[str, float]
    fault: str | None


def judge_labels(found: Map, wanted: Map) -> Verdict:
    """Share of equal class ids, and mean intersection over union between the two."""
    agreement = float((found == wanted).mean())
    union = [
        ((found == label) & (wanted == label)).sum() / ((found == label) | (wanted == label)).sum()
        for label in np.unique(wanted)
    ]
    fault = f"labels agree on {agreement:.4%} of the pixels, at least {LABEL_AGREEMENT:.1%} must"
    return Verdict(
        {"agreement": agreement, "mIoU": float(np.mean(union))},
        None if agreement >= LABEL_AGREEMENT else fault,
    )


def judge_depth(found: Map, wanted: Map) -> Verdict:
    """Error relative to PyTorch's depth; RMSE in metres."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    return _judge_error(np.abs(found - wanted) / wanted, rmse_m=np.sqrt(np.square(found - wanted).mean()))


def judge_normals(found: Map, wanted: Map) -> Verdict:
    """Length of the difference of two unit vectors; mean angle in degrees."""
    chord = np.linalg.norm(found.astype(np.float64) - wanted, axis=-1)
    return _judge_error(chord, mean_degrees=np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1))).mean())


def judge_probability(found: Map, wanted: Map) -> Verdict:
    """Error relative to PyTorch's probability; mean absolute error."""
    error = np.abs(found.astype(np.float64) - wanted)
    return _judge_error(error / np.maximum(wanted, LEAST_PROBABILITY), mae=error.mean())


JUDGES: dict[Kind, Callable[[Map, Map], Verdict]] = {
    "labels": judge_labels,
    "depth": judge_depth,
    "normals": judge_normals,
    "probability": judge_probability,
}
"""[N,H,W,...] maps of ONNX Runtime and of PyTorch -> verdict, for each kind of task."""


def check_parity(
    session: ort.InferenceSession, graph: DeploymentGraph, photos: Mapping[str, Photo]
) -> dict[str, object]:
    """Compare the opened graph with PyTorch on ``photos`` (RGB uint8 [H,W,3] by name) at each of `BATCHES`.

    Returns:
        What ``parity.json`` records: versions, photos, limits, and each task's figures by batch size.

    Raises:
        ParityError: a task is beyond its limit; every such task is named with what was measured.
    """
    images = np.stack(list(photos.values()))
    wanted = _run_torch(graph, images)
    report: dict[str, dict[str, Verdict]] = {task.name: {} for task in graph.tasks}
    for batch in BATCHES:
        found = _run_onnx(session, images, batch)
        for task in graph.tasks:
            report[task.name][f"batch_{batch}"] = JUDGES[task.kind](found[task.name], wanted[task.name])
    faults = {
        task: f"{verdict.fault} ({batch})"
        for task, verdicts in report.items()
        for batch, verdict in verdicts.items()
        if verdict.fault
    }
    if faults:
        raise ParityError(faults)
    return {
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "photos": list(photos),
        "limits": {"label_agreement": LABEL_AGREEMENT, "relative_error_p99": RELATIVE_ERROR},
        "tasks": {
            task: {batch: verdict.figures for batch, verdict in verdicts.items()}
            for task, verdicts in report.items()
        },
    }


def _judge_error(error: NDArray[np.float64], **figures: np.float64) -> Verdict:
    median, p99 = np.quantile(error, (0.5, 0.99))
    fault = f"the relative error is {p99:.2e} at the 99th percentile, the limit is {RELATIVE_ERROR:.0e}"
    return Verdict(
        {
            "relative_error_median": float(median),
            "relative_error_p99": float(p99),
            "relative_error_max": float(error.max()),
            **{name: float(value) for name, value in figures.items()},
        },
        None if p99 <= RELATIVE_ERROR else fault,
    )


def _run_torch(graph: DeploymentGraph, images: NDArray[np.uint8]) -> dict[str, Map]:
    with torch.inference_mode():
        runs = [graph(torch.from_numpy(image[None].copy())) for image in images]
    return {task.name: np.concatenate([run[task.name].numpy() for run in runs]) for task in graph.tasks}


def _run_onnx(session: ort.InferenceSession, images: NDArray[np.uint8], batch: int) -> dict[str, Map]:
    """All maps; the photos go around once more to fill the last batch."""
    names = [output.name for output in session.get_outputs()]
    runs = []
    for start in range(0, len(images), batch):
        chosen = np.arange(start, start + batch) % len(images)
        runs.append(session.run(names, {IMAGE_TENSOR: images[chosen]}))
    return {
        name: np.concatenate(maps)[: len(images)]
        for name, maps in zip(names, zip(*runs, strict=True), strict=True)
    }
