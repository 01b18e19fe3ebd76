"""Whether one graph gives the maps that another gives, or PyTorch, evaluated task by task on images.

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
from export.validation_images import RgbImage
from mtcp_serve.bundle.manifest import IMAGE_TENSOR

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
FP16 = Limits(label_agreement=0.99, relative_error_p99=5e-2)
"""For FP16 against float32."""


@dataclass(frozen=True)
class Result:
    """How one task agrees at one batch size: ``metrics`` by name, and what is wrong (None if nothing is)."""

    metrics: dict[str, float]
    fault: str | None


def evaluate_labels(found: Map, expected: Map, limits: Limits = EXACT) -> Result:
    """Share of equal class ids, mean intersection over union, share of other ids in the worst images."""
    agreement = float((found == expected).mean())
    others = (found != expected).reshape(len(found), -1).mean(1)
    union = [
        ((found == label) & (expected == label)).sum() / ((found == label) | (expected == label)).sum()
        for label in np.unique(expected)
    ]
    fault = f"labels agree on {agreement:.4%} of the pixels, at least {limits.label_agreement:.1%} must"
    return Result(
        {
            "agreement": agreement,
            "mIoU": float(np.mean(union)),
            "image_disagreement_p99": float(np.quantile(others, 0.99)),
        },
        None if agreement >= limits.label_agreement else fault,
    )


def evaluate_depth(found: Map, expected: Map, limits: Limits = EXACT) -> Result:
    """Error relative to the expected depth; RMSE and 99th percentile in metres."""
    expected = expected.astype(np.float64)
    error = np.abs(found.astype(np.float64) - expected)
    return _evaluate_error(
        error / expected,
        limits,
        rmse_m=np.sqrt(np.square(error).mean()),
        error_p99_m=np.quantile(error, 0.99),
    )


def evaluate_normals(found: Map, expected: Map, limits: Limits = EXACT) -> Result:
    """Length of the difference of two unit vectors; mean and 99th percentile of the angle in degrees."""
    chord = np.linalg.norm(found.astype(np.float64) - expected, axis=-1)
    degrees = np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
    return _evaluate_error(
        chord, limits, mean_degrees=degrees.mean(), error_p99_degrees=np.quantile(degrees, 0.99)
    )


def evaluate_probability(found: Map, expected: Map, limits: Limits = EXACT) -> Result:
    """Error relative to the expected probability; mean and 99th percentile of the absolute error."""
    error = np.abs(found.astype(np.float64) - expected)
    return _evaluate_error(
        error / np.maximum(expected, LEAST_PROBABILITY),
        limits,
        mae=error.mean(),
        error_p99=np.quantile(error, 0.99),
    )


EVALUATORS: dict[str, Callable[[Map, Map, Limits], Result]] = {
    "labels": evaluate_labels,
    "depth": evaluate_depth,
    "normals": evaluate_normals,
    "probability": evaluate_probability,
}
"""[N,H,W,...] maps, expected maps and limits -> result, for each kind of task."""


def check_parity(
    session: ort.InferenceSession, graph: DeploymentGraph, images: Mapping[str, RgbImage]
) -> dict[str, object]:
    """Compare the opened graph with PyTorch on ``images`` (RGB uint8 [H,W,3] by name) at each of `BATCHES`.

    Returns:
        What ``parity.json`` records: versions, images, limits, and each task's metrics by batch size.

    Raises:
        ParityError: a task is beyond its limit; every such task is named with what was measured.
    """
    stack = np.stack(list(images.values()))
    expected = _run_torch(graph, stack)
    kinds = graph.outputs
    results = {
        f"batch_{batch}": evaluate(run_onnx(session, stack, batch), expected, kinds, EXACT)
        for batch in BATCHES
    }
    raise_faults(results, "ONNX Runtime does not reproduce PyTorch")
    return {
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "images": list(images),
        "limits": asdict(EXACT),
        "tasks": {task: {batch: results[batch][task].metrics for batch in results} for task in kinds},
    }


def evaluate(
    found: Mapping[str, Map], expected: Mapping[str, Map], kinds: Mapping[str, str], limits: Limits
) -> dict[str, Result]:
    """The result on each task: [N,H,W,...] maps by task name, against those expected."""
    return {task: EVALUATORS[kind](found[task], expected[task], limits) for task, kind in kinds.items()}


def raise_faults(results: Mapping[str, Mapping[str, Result]], claim: str) -> None:
    """Stop if any result, by circumstance (a batch size, say) and task, has a fault.

    Raises:
        ParityError: it says ``claim``, then names every such task with what was measured.
    """
    faults = {
        task: f"{result.fault} ({circumstance})"
        for circumstance, tasks in results.items()
        for task, result in tasks.items()
        if result.fault
    }
    if faults:
        raise ParityError(faults, claim)


def run_onnx(session: ort.InferenceSession, images: NDArray[np.uint8], batch: int) -> dict[str, Map]:
    """Maps [N,...] by name of images [N,H,W,3]."""
    names = [output.name for output in session.get_outputs()]
    return run_in_batches(
        lambda chosen: dict(zip(names, session.run(names, {IMAGE_TENSOR: chosen}), strict=True)),
        images,
        batch,
    )


def run_in_batches(
    run: Callable[[NDArray[np.uint8]], Mapping[str, Map]], images: NDArray[np.uint8], batch: int
) -> dict[str, Map]:
    """Maps [N,...] by name of images [N,H,W,3]; they go around once more to fill the last batch."""
    runs = [
        run(images[np.arange(start, start + batch) % len(images)]) for start in range(0, len(images), batch)
    ]
    return {name: np.concatenate([maps[name] for maps in runs])[: len(images)] for name in runs[0]}


def _evaluate_error(error: NDArray[np.float64], limits: Limits, **metrics: np.float64) -> Result:
    median, p99 = np.quantile(error, (0.5, 0.99))
    most = limits.relative_error_p99
    fault = f"the relative error is {p99:.2e} at the 99th percentile, the limit is {most:.0e}"
    return Result(
        {
            "relative_error_median": float(median),
            "relative_error_p99": float(p99),
            "relative_error_max": float(error.max()),
            **{name: float(value) for name, value in metrics.items()},
        },
        None if p99 <= most else fault,
    )


def _run_torch(graph: DeploymentGraph, images: NDArray[np.uint8]) -> dict[str, Map]:
    with torch.inference_mode():
        runs = [graph(torch.from_numpy(image[None].copy())) for image in images]
    return {name: np.concatenate([run[name].numpy() for run in runs]) for name in graph.outputs}
