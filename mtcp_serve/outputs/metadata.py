"""What there is to say about a prediction, as the classes of `mtcp_serve.outputs.schemas`."""

from dataclasses import asdict

from mtcp_serve.engines.base import Engine
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.inference.registry import Models
from mtcp_serve.kinds.base import ConfidenceOut, Map, MapOut
from mtcp_serve.kinds.confidence import ConfidenceTask
from mtcp_serve.outputs.schemas import (
    CameraOut,
    ImageOut,
    ModelOut,
    ModelRef,
    ModelsOut,
    PredictOut,
)


def describe_map(dense: DenseMap, values: Map) -> MapOut:
    """The metadata of one map, given its ``values()``; the PNG is left to whoever encodes it."""
    about = {} if dense.measured is None else {"measured": dense.measured}
    metadata = dense.task.describe(
        values, model=dense.model, width=dense.width, height=dense.height, resampled=dense.resampled, **about
    )
    sure = dense.confidence
    if sure is not None and isinstance(sure.task, ConfidenceTask):
        mean = round(float(sure.raw.mean()), 4)
        metadata.confidence = ConfidenceOut(criterion=sure.task.words, mean=mean, resampled=sure.resampled)
    return metadata


def describe(prediction: DenseMaps, maps: dict[str, MapOut]) -> PredictOut:
    """The answer that holds ``maps``; timings are those known by now."""
    without = [dense.task.name for dense in prediction.maps if dense.confidence is None]
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
        without_confidence=without if 0 < len(without) < len(prediction.maps) else None,
        timings_ms=prediction.timings.ms,
    )


def _describe_image(prediction: DenseMaps) -> ImageOut:
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
