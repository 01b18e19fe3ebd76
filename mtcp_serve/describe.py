"""What there is to say about a prediction, as the classes of `mtcp_serve.schemas`."""

from dataclasses import asdict
from typing import Any, assert_never

import numpy as np

from mtcp_serve.engine import Engine
from mtcp_serve.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask
from mtcp_serve.pipeline import DenseMap, Prediction
from mtcp_serve.schemas import (
    DepthOut,
    ImageOut,
    Label,
    LabelsOut,
    MapOut,
    ModelOut,
    ModelRef,
    NormalsOut,
    PredictOut,
    ProbabilityOut,
)

MILLIMETRE = 0.001
"""Metres a step of a metric depth PNG."""


def depth_scale(task: DepthTask) -> tuple[float, float]:
    """``scale, offset`` of a depth PNG: value = offset + scale * pixel, for pixels 1 to 65535."""
    if task.metric:
        return MILLIMETRE, 0.0
    low, high = task.range
    scale = (high - low) / 65534
    return scale, low - scale


def describe_map(model: str, dense: DenseMap) -> MapOut:
    """The metadata of one map, without its pixels."""
    height, width = dense.values.shape[:2]
    common: dict[str, Any] = {
        "model": model,
        "width": width,
        "height": height,
        "resampled": dense.resampled,
    }
    task = dense.task
    match task:
        case LabelsTask():
            counts = np.bincount(dense.values.ravel().astype(np.uint8), minlength=256)
            return LabelsOut(
                **common,
                dataset=task.dataset,
                labels=[
                    Label(id=index, name=name, color=colour)
                    for index, (name, colour) in enumerate(zip(task.labels, task.palette, strict=True))
                ],
                present=[int(i) for i in np.flatnonzero(counts) if i != task.ignore_index],
                ignore_index=task.ignore_index,
            )
        case DepthTask():
            valid = dense.values[dense.values > 0]
            scale, offset = depth_scale(task)
            return DepthOut(
                **common,
                trained_on=task.trained_on,
                unit=task.unit,
                metric=task.metric,
                png_scale=scale,
                png_offset=offset,
                min=_short(valid.min()) if valid.size else None,
                max=_short(valid.max()) if valid.size else None,
            )
        case NormalsTask():
            return NormalsOut(**common, trained_on=task.trained_on, frame=task.frame)
        case ProbabilityTask():
            return ProbabilityOut(**common, trained_on=task.trained_on)
        case _ as unreachable:
            assert_never(unreachable)


def describe(prediction: Prediction) -> PredictOut:
    """The metadata of all maps, without their pixels; timings as far as they are known now."""
    manifest = prediction.manifest
    return PredictOut(
        models=[
            ModelRef(
                name=manifest.name,
                version=manifest.version,
                width=manifest.input.width,
                height=manifest.input.height,
            )
        ],
        image=ImageOut(**asdict(prediction.image)),
        maps={dense.task.name: describe_map(manifest.name, dense) for dense in prediction.maps},
        timings_ms=dict(prediction.timings.ms),
    )


def describe_model(engine: Engine, default: bool) -> ModelOut:
    """A loaded model, for ``GET /models``."""
    manifest = engine.manifest
    return ModelOut(
        name=manifest.name,
        version=manifest.version,
        default=default,
        device=engine.device,
        input=manifest.input,
        tasks=list(manifest.tasks),
        parameters=manifest.parameters,
        gmacs=manifest.gmacs,
        license=manifest.license,
        description=manifest.description,
    )


def _short(value: np.floating[Any]) -> float:
    """``value`` with the digits that a float32 holds, not those of its double."""
    return float(f"{value:.6g}")
