"""Procedural scenes as a source: computed images, each pixel of each task labelled exactly."""

import logging
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from training.data.boundaries import boundaries
from training.data.config import SourceConfig
from training.data.encodings import MapFile
from training.data.errors import LabelError
from training.data.maps import map_types
from training.data.reader import maps_to_read
from training.data.sample import Record
from training.data.scenes.camera import Array
from training.data.scenes.layout import random_scene
from training.data.scenes.render import Drawing, draw, salient_thing
from training.data.scenes.things import Scene
from training.label_spaces import IGNORE_LABEL, LabelSpace
from training.tasks import Task

log = logging.getLogger(__name__)

_ELSE = ("background", "other")
_PARTS = "fashion"
_DRAWN = frozenset({"depth", "disparity", "normals", "saliency", "edges"})
"""Maps without classes that the scenes have; others are missing labels."""


def class_id(space: LabelSpace, names: Sequence[str]) -> int:
    """Id of the first of ``names`` that ``space`` has, else of its background or other, else 255."""
    for name in (*names, *_ELSE):
        if name in space.labels:
            return space.labels.index(name)
    return IGNORE_LABEL


class SceneReader:
    """``config.count`` scenes drawn at ``size`` (H, W); scene i of a split is always the same.

    Class names of the scenes are mapped to ids of the network's label spaces by name; a ``labels`` task for
    which ``config.tasks`` names another space is not read, and parsing only in the space ``fashion``, which
    names the parts of the scenes' people. Edges are the outlines of things. Disparity
    is the exact inverse of depth, 1 at the nearest pixel.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        self._size = size
        self._types = map_types(tasks)
        self._split = zlib.crc32(config.split.encode())
        self._spaces = {task.name: task.space for task in tasks if task.space is not None}
        self._maps = [name for name in maps_to_read(config, tasks) if self._is_ours(name, config)]
        if "parsing" in self._maps and self._spaces["parsing"].name != _PARTS:
            self._maps.remove("parsing")
        self.ids = [f"scene_{config.split}_{index:05d}" for index in range(config.count)]
        self.labels: list[dict[str, MapFile]] = [{} for _ in self.ids]

    def _is_ours(self, name: str, config: SourceConfig) -> bool:
        space = self._spaces.get(name)
        if space is None:
            return name in _DRAWN
        if name not in config.tasks or config.space_of(name).labels == space.labels:
            return True
        log.warning(
            "source %r: scenes are drawn in the network's own label space, not %r: no %s in them",
            config.label,
            config.tasks[name],
            name,
        )
        return False

    def read(self, index: int) -> Record:
        """Scene ``index``, all maps at the size of the image."""
        rng = np.random.default_rng((self._split, index))
        scene = random_scene(rng, self._size)
        drawing = draw(scene, rng)
        record: Record = {"id": self.ids[index], "image": tv_tensors.Image(torch.from_numpy(drawing.image))}
        focal, (height, width) = scene.camera.focal, scene.camera.size
        record["focal"] = (focal / width, focal / height)
        for name in self._maps:
            values = torch.from_numpy(self._values(name, scene, drawing))
            record[name] = self._types[name].of(values)
        return record

    def problems(self, index: int) -> list[LabelError]:
        """None: there are no files."""
        del index
        return []

    def _values(self, name: str, scene: Scene, drawing: Drawing) -> NDArray[np.generic]:
        if name == "depth":
            return drawing.depth[None]
        if name == "disparity":
            nearest: Array = drawing.depth.min() / drawing.depth[None]
            return nearest
        if name == "normals":
            return drawing.normals
        if name == "saliency":
            chosen = drawing.thing == salient_thing(scene, drawing)
            return np.asarray(chosen[None], np.float32)
        if name == "edges":
            return boundaries(drawing.thing)[None]
        space = self._spaces[name]
        if name == "parsing":
            return _painted([class_id(space, (part,)) for part in drawing.parts], drawing.part)
        return _painted([class_id(space, thing.names) for thing in scene.things], drawing.thing)


def _painted(ids: list[int], index: NDArray[np.intp]) -> NDArray[np.uint8]:
    painted: NDArray[np.uint8] = np.array(ids, np.uint8)[index]
    return painted
