"""``npz``: the arrays as they are, for ``numpy.load``."""

from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.kinds.base import Map
from mtcp_serve.kinds.confidence import SUFFIX
from mtcp_serve.outputs.formats.archive import ArrayArchive
from mtcp_serve.outputs.formats.base import Options, Writer
from mtcp_serve.outputs.metadata import describe_map
from mtcp_serve.outputs.picture import draw

_LARGE: Final = 2**22  # pixels of a map from which on it is made in the archive, not held beside it
_About = tuple[MapOut, NDArray[np.uint8] | None]  # what is said of a map, and its picture


class NpzWriter(Writer):
    """Uncompressed: a member per map, named after its task, and ``metadata``, the JSON as a string.

    Confidences are float32 ``[height, width]`` members ``TASK_confidence``.
    Pictures are uint8 ``[height, width, 3]`` members ``TASK.visualization``, higher than the map where
    they have a legend.
    """

    name = "npz"
    media_type = "application/x-npz"
    file_name = "maps.npz"
    description = (
        "a member per map named after its task (uint8 labels, float32 otherwise), stored, not deflated, and "
        "member `metadata`, the JSON without PNGs as a string"
    )

    def __init__(self, pool: Executor, wanted: Options | None = None) -> None:
        super().__init__(pool, wanted)
        self._archive = ArrayArchive()

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        maps = {}
        large = any(dense.height * dense.width > _LARGE for dense in prediction.maps)
        if large:
            for name, layer in _layers(prediction, folder):
                self._archive.reserve(name, layer.shape, layer.task.array_type)
        here = self.wanted.style is None and all(map(_as_it_is, prediction.maps))
        made = (map if here else self.pool.map)(partial(self._encode, folder, large), prediction.maps)
        for dense, (values, sure, about) in zip(prediction.maps, [*made] if large else made, strict=True):
            name = folder + dense.task.name
            metadata, picture = about
            if values is not None:
                self._archive.add(name, values)
            if picture is not None:
                self._archive.add(f"{name}.visualization", picture)
            if sure is not None:
                self._archive.add(name + SUFFIX, sure)
            maps[dense.task.name] = metadata
        return maps

    def _encode(self, folder: str, reserved: bool, dense: DenseMap) -> tuple[Map | None, Map | None, _About]:
        """The map and its confidence, unless they are in their reserved places, and what belongs to them."""
        style, sure = self.wanted.style, dense.confidence

        def about(values: Map) -> _About:
            picture = None if style is None else np.asarray(draw(dense.task, values, style))
            return describe_map(dense, values), picture

        def written(out: Map) -> _About:
            dense.write(out)
            return about(out)

        if not reserved:
            values = dense.values()
            return values, None if sure is None else sure.values(), about(values)
        name = folder + dense.task.name
        if sure is not None:
            self._archive.fill(name + SUFFIX, sure.write)
        return None, None, self._archive.fill(name, written)

    def finish(self, document: BaseModel) -> bytes:
        """The archive."""
        self._archive.add("metadata", np.array(document.model_dump_json(exclude_none=True)))
        return self._archive.finish()


def _as_it_is(dense: DenseMap) -> bool:
    """Whether nothing is left to compute: handing it to another thread would take longer than doing it."""
    sure = dense.confidence
    return dense.resampled == "none" and (sure is None or sure.resampled == "none")


def _layers(prediction: DenseMaps, folder: str) -> Iterator[tuple[str, DenseMap]]:
    """The members that are maps or confidences, by name."""
    for dense in prediction.maps:
        yield folder + dense.task.name, dense
        if dense.confidence is not None:
            yield folder + dense.task.name + SUFFIX, dense.confidence
