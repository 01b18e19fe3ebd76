"""What there is to say about a prediction, as the classes of `mtcp_serve.outputs.schemas`."""

from dataclasses import asdict
from typing import Any, assert_never

import numpy as np
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask
from mtcp_serve.engines.base import Engine
from mtcp_serve.inference.pipeline import DenseMap, Prediction
from mtcp_serve.inference.registry import Models
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.png import depth_scale
from mtcp_serve.outputs.schemas import (
    CameraOut,
    DepthOut,
    ImageOut,
    Label,
    LabelsOut,
    MapOut,
    ModelOut,
    ModelRef,
    ModelsOut,
    NormalsOut,
    PredictOut,
    ProbabilityOut,
)


def describe_map(dense: DenseMap, values: Map) -> MapOut:
    """The metadata of one map, given its ``values()``; the PNG is left to whoever encodes it."""
    common: dict[str, Any] = {
        "model": dense.model,
        "width": dense.width,
        "height": dense.height,
        "resampled": dense.resampled,
    }
    task = dense.task
    match task:
        case LabelsTask():
            counts = Image.fromarray(values).histogram()
            return LabelsOut(
                **common,
                dataset=task.dataset,
                labels=[
                    Label(id=index, name=name, color=colour)
                    for index, (name, colour) in enumerate(zip(task.labels, task.palette, strict=True))
                ],
                present=[i for i, count in enumerate(counts) if count and i != task.ignore_index],
                ignore_index=task.ignore_index,
            )
        case DepthTask():
            valid = values[values > 0]
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


def describe(prediction: Prediction, maps: dict[str, MapOut]) -> PredictOut:
    """The answer that holds ``maps``; timings are those known by now."""
    return PredictOut(
        models=[
            ModelRef(
                name=manifest.name,
                version=manifest.version,
                width=manifest.input.width,
                height=manifest.input.height,
            )
            for manifest in prediction.models
        ],
        image=_describe_image(prediction),
        maps=maps,
        timings_ms=prediction.timings.ms,
    )


def _describe_image(prediction: Prediction) -> ImageOut:
    known = asdict(prediction.image)
    del known["focal"]
    camera = prediction.camera
    return ImageOut(
        **known,
        camera=CameraOut(
            fx=round(camera.fx, 3),
            fy=round(camera.fy, 3),
            cx=round(camera.cx, 3),
            cy=round(camera.cy, 3),
            source=camera.source,
        ),
    )


def describe_models(models: Models) -> ModelsOut:
    """The loaded models, for ``GET /models``."""
    default = next(iter(models))
    return ModelsOut(
        models=[_describe_model(batcher.engine, batcher is default) for batcher in models],
        tasks={name: choice.manifest.name for name, choice in models.choices().items()},
    )


def _describe_model(engine: Engine, default: bool) -> ModelOut:
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
