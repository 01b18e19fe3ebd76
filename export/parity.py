"""Whether one graph gives the maps that another gives, or PyTorch, judged task by task on photos.

The limits are on percentiles, not on the largest difference: the decoder of Mask2Former thresholds its
attention masks, so that a rounding error may flip a few pixels of a right graph.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.deployment_module import DeploymentGraph
from export.errors import ParityError
from export.validation_images import Photo
from mtcp_serve.bundle.manifest import IMAGE_TENSOR
from training.tasks import Kind

BATCHES = (1, 3)
"""Batch sizes to run the graph with; two of them prove that its batch is dynamic."""
LEAST_PROBABILITY = 1 / 255
"""Errors of smaller probabilities are relative to this: an 8-bit map shows no difference among them."""

Map = NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """How much maps may differ."""

    label_agreement: float
    """Least share of pixels with the same class."""
    relative_error_p99: float
    """Most at the 99th percentile of the relative error of depth, normals and probabilities."""


EXACT = Limits(label_agreement=0.999, relative_error_p99=1e-3)
"""For the same arithmetic in another runtime."""
HALF = Limits(label_agreement=0.99, relative_error_p99=5e-2)
"""For half precision against single."""


@dataclass(frozen=True)
class Verdict:
    """How one task agrees at one batch size: ``figures`` by name, and what is wrong (None if nothing is)."""

    figures: dict[str, float]
    fault: str | None


def judge_labels(found: Map, wanted: Map, limits: Limits = EXACT) -> Verdict:
    """Share of equal class ids, mean intersection over union, share of other ids in the worst photos."""
    agreement = float((found == wanted).mean())
    others = (found != wanted).reshape(len(found), -1).mean(1)
    union = [
        ((found == label) & (wanted == label)).sum() / ((found == label) | (wanted == label)).sum()
        for label in np.unique(wanted)
    ]
    fault = f"labels agree on {agreement:.4%} of the pixels, at least {limits.label_agreement:.1%} must"
    return Verdict(
        {
            "agreement": agreement,
            "mIoU": float(np.mean(union)),
            "photo_disagreement_p99": float(np.quantile(others, 0.99)),
        },
        None if agreement >= limits.label_agreement else fault,
    )


def judge_depth(found: Map, wanted: Map, limits: Limits = EXACT) -> Verdict:
    """Error relative to the wanted depth; RMSE and 99th percentile in metres."""
    wanted = wanted.astype(np.float64)
    error = np.abs(found.astype(np.float64) - wanted)
    return _judge_error(
        error / wanted,
        limits,
        rmse_m=np.sqrt(np.square(error).mean()),
        error_p99_m=np.quantile(error, 0.99),
    )


def judge_normals(found: Map, wanted: Map, limits: Limits = EXACT) -> Verdict:
    """Length of the difference of two unit vectors; mean and 99th percentile of the angle in degrees."""
    chord = np.linalg.norm(found.astype(np.float64) - wanted, axis=-1)
    degrees = np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
    return _judge_error(
        chord, limits, mean_degrees=degrees.mean(), error_p99_degrees=np.quantile(degrees, 0.99)
    )


def judge_probability(found: Map, wanted: Map, limits: Limits = EXACT) -> Verdict:
    """Error relative to the wanted probability; mean and 99th percentile of the absolute error."""
    error = np.abs(found.astype(np.float64) - wanted)
    return _judge_error(
        error / np.maximum(wanted, LEAST_PROBABILITY),
        limits,
        mae=error.mean(),
        error_p99=np.quantile(error, 0.99),
    )


JUDGES: dict[Kind, Callable[[Map, Map, Limits], Verdict]] = {
    "labels": judge_labels,
    "depth": judge_depth,
    "normals": judge_normals,
    "probability": judge_probability,
}
"""[N,H,W,...] maps, wanted maps and limits -> verdict, for each kind of task."""


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
    kinds = {task.name: task.kind for task in graph.tasks}
    verdicts = {
        f"batch_{batch}": judge(run_onnx(session, images, batch), wanted, kinds, EXACT) for batch in BATCHES
    }
    refuse(verdicts, "ONNX Runtime does not reproduce PyTorch")
    return {
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "photos": list(photos),
        "limits": asdict(EXACT),
        "tasks": {task: {batch: verdicts[batch][task].figures for batch in verdicts} for task in kinds},
    }


def judge(
    found: Mapping[str, Map], wanted: Mapping[str, Map], kinds: Mapping[str, Kind], limits: Limits
) -> dict[str, Verdict]:
    """The verdict on each task: [N,H,W,...] maps by task name, against those wanted."""
    return {task: JUDGES[kind](found[task], wanted[task], limits) for task, kind in kinds.items()}


def refuse(verdicts: Mapping[str, Mapping[str, Verdict]], claim: str) -> None:
    """Stop if any verdict, by circumstance (a batch size, say) and task, has a fault.

    Raises:
        ParityError: it says ``claim``, then names every such task with what was measured.
    """
    faults = {
        task: f"{verdict.fault} ({circumstance})"
        for circumstance, tasks in verdicts.items()
        for task, verdict in tasks.items()
        if verdict.fault
    }
    if faults:
        raise ParityError(faults, claim)


def run_onnx(session: ort.InferenceSession, images: NDArray[np.uint8], batch: int) -> dict[str, Map]:
    """Maps [N,...] by name of photos [N,H,W,3]."""
    names = [output.name for output in session.get_outputs()]
    return run_in_batches(
        lambda chosen: dict(zip(names, session.run(names, {IMAGE_TENSOR: chosen}), strict=True)),
        images,
        batch,
    )


def run_in_batches(
    run: Callable[[NDArray[np.uint8]], Mapping[str, Map]], images: NDArray[np.uint8], batch: int
) -> dict[str, Map]:
    """Maps [N,...] by name of photos [N,H,W,3]; they go around once more to fill the last batch."""
    runs = [
        run(images[np.arange(start, start + batch) % len(images)]) for start in range(0, len(images), batch)
    ]
    return {name: np.concatenate([maps[name] for maps in runs])[: len(images)] for name in runs[0]}


def _judge_error(error: NDArray[np.float64], limits: Limits, **figures: np.float64) -> Verdict:
    median, p99 = np.quantile(error, (0.5, 0.99))
    most = limits.relative_error_p99
    fault = f"the relative error is {p99:.2e} at the 99th percentile, the limit is {most:.0e}"
    return Verdict(
        {
            "relative_error_median": float(median),
            "relative_error_p99": float(p99),
            "relative_error_max": float(error.max()),
            **{name: float(value) for name, value in figures.items()},
        },
        None if p99 <= most else fault,
    )


def _run_torch(graph: DeploymentGraph, images: NDArray[np.uint8]) -> dict[str, Map]:
    with torch.inference_mode():
        runs = [graph(torch.from_numpy(image[None].copy())) for image in images]
    return {task.name: np.concatenate([run[task.name].numpy() for run in runs]) for task in graph.tasks}
