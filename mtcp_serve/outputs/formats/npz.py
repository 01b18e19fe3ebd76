"""``npz``: the arrays as they are, for ``numpy.load``."""

from concurrent.futures import Executor

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
        here = self.wanted.style is None and all(map(_as_it_is, prediction.maps))
        made = (map if here else self.pool.map)(self._encode, prediction.maps)
        for dense, (values, metadata, picture, sure) in zip(prediction.maps, made, strict=True):
            name = dense.task.name
            self._archive.add(folder + name, values)
            if picture is not None:
                self._archive.add(f"{folder}{name}.visualization", picture)
            if sure is not None:
                self._archive.add(folder + name + SUFFIX, sure)
            maps[name] = metadata
        return maps

    def _encode(self, dense: DenseMap) -> tuple[Map, MapOut, NDArray[np.uint8] | None, Map | None]:
        values = dense.values()
        style = self.wanted.style
        picture = None if style is None else np.asarray(draw(dense.task, values, style))
        sure = None if dense.confidence is None else dense.confidence.values()
        return values, describe_map(dense, values), picture, sure

    def finish(self, document: BaseModel) -> bytes:
        """The archive."""
        self._archive.add("metadata", np.array(document.model_dump_json(exclude_none=True)))
        return self._archive.finish()


def _as_it_is(dense: DenseMap) -> bool:
    """Whether nothing is left to compute: handing it to another thread would take longer than doing it."""
    sure = dense.confidence
    return dense.resampled == "none" and (sure is None or sure.resampled == "none")
