"""Flicker before and after smoothing, and what smoothing costs where the picture moves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.engines.base import EngineOptions
from mtcp_serve.engines.loading import load_engine
from mtcp_serve.inference.batcher import Batcher
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.inference.pipeline import DenseMaps, infer_maps
from mtcp_serve.inference.registry import Models
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import LabelsTask
from mtcp_serve.offline.video.smoothing import Smoother

NOISE: Final = 4.0
"""Standard deviation of the camera's noise, grey levels."""
PAN: Final = 3
"""Pixels a frame."""
STRENGTH: Final = 0.8
_SETTLED: Final = 4  # frames until a mean has forgotten its beginning, as far as these figures go


def measure_smoothing(
    bundle: Path, threads: int, image: Image.Image, frames: int
) -> dict[str, dict[str, float]]:
    """By task: flicker after over before, and mean errors on a pan against the frames without noise."""
    return asyncio.run(_measure(bundle, threads, image, frames))


async def _measure(bundle: Path, threads: int, image: Image.Image, count: int) -> dict[str, dict[str, float]]:
    models = Models([Batcher(load_engine(Bundle.open(bundle), options=EngineOptions(threads=threads)))])
    choices = list(models.choices().values())
    height, width = choices[0].manifest.input.height, choices[0].manifest.input.width
    random = np.random.default_rng(0)

    def noisy(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        grain: NDArray[np.uint8] = np.rint(frame + random.normal(0, NOISE, frame.shape)).clip(0, 255)
        return grain.astype(np.uint8)

    async def predict(frame: NDArray[np.uint8]) -> DenseMaps:
        info = ImageInfo(width, height, "array", "RGB", exif_rotated=False, animated=False)
        return await infer_maps(info, {(height, width): frame}, choices, "model", Timings())

    async def smoothed(frames: Iterator[NDArray[np.uint8]]) -> tuple[list[Any], list[Any]]:
        """The maps of frames with noise by task, as they are and smoothed."""
        smoother, plain, smooth = Smoother(STRENGTH), [], []
        for frame in map(noisy, frames):
            found = await predict(frame)
            plain.append({dense.task.name: dense.raw for dense in found.maps})
            found = smoother(found, {(height, width): frame})
            smooth.append({dense.task.name: dense.raw for dense in found.maps})
        return plain, smooth

    still = np.asarray(image.resize((width, height)))
    before, after = await smoothed(iter([still] * count))
    wide = np.asarray(image.resize((width + PAN * count, height)))
    pan = [np.ascontiguousarray(wide[:, PAN * at : PAN * at + width]) for at in range(count)]
    clean = [{dense.task.name: dense.raw for dense in (await predict(frame)).maps} for frame in pan]
    plain, smooth = await smoothed(iter(pan))
    report = {}
    for choice in choices:
        name, labels = choice.task.name, isinstance(choice.task, LabelsTask)
        report[name] = {
            "flicker left": round(_flicker(after, name) / max(_flicker(before, name), 1e-9), 3),
            "pan, error as it is": round(_error(plain, clean, name), 4),
            "pan, error smoothed": round(_error(smooth, clean, name), 4),
        }
        if not labels:
            report[name]["pan, error of a blind mean"] = round(_error(_mean(plain, name), clean, name), 4)
    return report


def _flicker(maps: list[Any], name: str) -> float:
    """How much a map changes from frame to frame; of classes the share of pixels that do."""
    values = np.stack([each[name] for each in maps[_SETTLED:]])
    if values.dtype == np.uint8:
        return float((values[1:] != values[:-1]).mean())
    return float(np.std(np.diff(values, axis=0)))


def _error(maps: list[Any], truth: list[Any], name: str) -> float:
    """The mean distance from the maps of the frames without noise; of classes the share that is another."""
    pairs = zip(maps[_SETTLED:], truth[_SETTLED:], strict=True)
    return float(np.mean([_distance(found[name], expected[name]) for found, expected in pairs]))


def _distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float((found != expected if found.dtype == np.uint8 else np.abs(found - expected)).mean())


def _mean(maps: list[Any], name: str) -> list[Any]:
    """What an exponential mean that knows no motion would make of them."""
    found = [maps[0][name]]
    for each in maps[1:]:
        found.append(STRENGTH * found[-1] + (1 - STRENGTH) * each[name])
    return [{name: values} for values in found]
