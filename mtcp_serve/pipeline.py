"""From the bytes of a photo to its maps: the one way, for HTTP and the command line alike."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from mtcp_serve.engine import Engine
from mtcp_serve.errors import InternalError, UnknownTaskError
from mtcp_serve.images import ImageLimits, Photo, decode
from mtcp_serve.manifest import LabelsTask, Manifest, TaskSpec
from mtcp_serve.resample import Map, Rule, resize_map, rule
from mtcp_serve.threads import in_thread
from mtcp_serve.timings import Timings

Size = Literal["input", "model"]
"""Maps as large as the photo, or as the model gives them."""


@dataclass(frozen=True)
class DenseMap:
    """One task's answer: ``raw`` as the model gave it, and the size (pixels) that was asked for.

    Arrays are uint8 (labels) or float32 ``[height, width]``; normals have a last axis of 3.
    """

    task: TaskSpec
    raw: Map
    height: int
    width: int

    @property
    def resampled(self) -> Rule:
        """How `values` are brought to their size."""
        return rule(self.task, self.raw, self.height, self.width)

    def values(self) -> Map:
        """The map at its size: made anew at each call, so that nobody keeps what may be very large."""
        return resize_map(self.task, self.raw, self.height, self.width)


@dataclass(frozen=True)
class Prediction:
    """The maps of one photo and what is known about how they came about."""

    manifest: Manifest
    photo: Photo
    maps: tuple[DenseMap, ...]
    timings: Timings


class Pipeline:
    """Decodes and infers; ``pool`` is for encoders, which work map by map."""

    def __init__(self, engine: Engine, limits: ImageLimits) -> None:
        self.engine = engine
        self.limits = limits
        self.pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mtcp-map")

    async def warm_up(self) -> None:
        """Infer one black image, so that the first request meets a model that has run."""
        size = self.engine.manifest.input
        black = np.zeros((1, size.height, size.width, 3), np.uint8)
        await self.engine.infer(black, self.engine.manifest.tasks)

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()

    def select(self, names: Sequence[str] | None) -> tuple[TaskSpec, ...]:
        """The tasks called ``names``, in that order and each once; all the model has for ``None``.

        Raises:
            UnknownTaskError: the model has no task of that name; the message lists those it has.
        """
        tasks = {task.name: task for task in self.engine.manifest.tasks}
        if names is None:
            return tuple(tasks.values())
        for name in names:
            if name not in tasks:
                raise UnknownTaskError(
                    f"model {self.engine.manifest.name} has no task {name!r}; it has {', '.join(tasks)}"
                )
        return tuple(tasks[name] for name in dict.fromkeys(names))

    async def predict(
        self, data: bytes, tasks: Sequence[TaskSpec], size: Size, timings: Timings
    ) -> Prediction:
        """The maps of ``tasks`` for the photo in ``data``; stage times go into ``timings``.

        Raises:
            RequestError: what `mtcp_serve.images.decode` raises.
            InternalError: the model gave values that the task cannot have.
        """
        manifest = self.engine.manifest
        height, width = manifest.input.height, manifest.input.width
        with timings.measure("decode"):
            photo, pixels = await in_thread(partial(self._read, data, height, width))
        with timings.measure("infer"):
            batches = await self.engine.infer(pixels[None], tasks)
        raw = [batch[0] for batch in batches]
        for task, values in zip(tasks, raw, strict=True):
            check_values(task, values)
        if size == "input":
            height, width = photo.info.height, photo.info.width
        maps = tuple(DenseMap(task, values, height, width) for task, values in zip(tasks, raw, strict=True))
        return Prediction(manifest, photo, maps, timings)

    def _read(self, data: bytes, height: int, width: int) -> tuple[Photo, np.ndarray]:
        photo = decode(data, self.limits, enough=2 * max(height, width))
        return photo, photo.resized(height, width)


def check_values(task: TaskSpec, values: Map) -> None:
    """Refuse a map that no client could make sense of.

    Raises:
        InternalError: a label that the manifest does not name, or a value that is not finite.
    """
    if isinstance(task, LabelsTask):
        unknown = set(np.flatnonzero(np.bincount(values.ravel(), minlength=256))) - {
            *range(len(task.labels)),
            task.ignore_index,
        }
        if unknown:
            raise InternalError(f"the model gave class ids that task {task.name} does not name")
    elif not np.isfinite(values).all():
        raise InternalError(f"the model gave values for task {task.name} that are not finite")
