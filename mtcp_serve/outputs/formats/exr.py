"""``exr``: every map as float channels of one OpenEXR file, for compositing (extra ``openexr``)."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mtcp_serve.engines.sessions import cores
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.kinds import DepthTask, LabelsTask, MapOut, TaskSpec
from mtcp_serve.outputs.formats.base import Writer, needs_package
from mtcp_serve.outputs.metadata import describe_map


class ExrWriter(Writer):
    """Channels ``depth.Z``, ``normals.X`` and so on, ``saliency.Y`` (float32), ``semseg.id`` (uint32).

    Confidences are ``depth_confidence.Y`` and so on, float32. The header's attribute ``mtcp``
    is the JSON of the response. Lossless (ZIP).
    """

    name = "exr"
    media_type = "image/x-exr"
    file_name = "maps.exr"
    description = (
        "every map as channels of an OpenEXR file: `depth.Z` and `normals.X` float32 as they are, "
        "`semseg.id` uint32; the JSON is the attribute `mtcp`"
    )
    one_image = True
    options = frozenset({"refine", "confidence"})

    @classmethod
    def used(cls, tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
        """All of them, where OpenEXR is installed."""
        needs_package(cls.name, "OpenEXR", "OpenEXR", "openexr", "npz")
        return list(tasks)

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        self._channels: dict[str, NDArray[np.float32] | NDArray[np.uint32]] = {}
        maps = {}
        for dense, metadata, channels in self.pool.map(_encode, prediction.maps):
            self._channels |= channels
            maps[dense.task.name] = metadata
        return maps

    def finish(self, document: BaseModel) -> bytes:
        """The file."""
        import OpenEXR

        _use_all_cores()
        header = {
            "compression": OpenEXR.ZIP_COMPRESSION,
            "type": OpenEXR.scanlineimage,
            "mtcp": document.model_dump_json(exclude_none=True),
        }
        with _place() as path:
            OpenEXR.File(header, self._channels).write(str(path))
            self._channels.clear()  # more than the file: they need not stand beside it twice
            return path.read_bytes()


@cache
def _use_all_cores() -> None:
    """By default OpenEXR compresses in the calling thread alone."""
    import OpenEXR

    OpenEXR.set_global_thread_count(cores())


@contextmanager
def _place() -> Iterator[Path]:
    """Where to write, for OpenEXR takes a path only: in memory on Linux, where a server may have no disk."""
    if sys.platform != "linux":
        with TemporaryDirectory() as folder:
            yield Path(folder) / ExrWriter.file_name
        return
    descriptor = os.memfd_create(ExrWriter.file_name)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _encode(
    dense: DenseMap,
) -> tuple[DenseMap, MapOut, dict[str, NDArray[np.float32] | NDArray[np.uint32]]]:
    values, name = dense.values(), dense.task.name
    channels: dict[str, NDArray[np.float32] | NDArray[np.uint32]]
    if isinstance(dense.task, LabelsTask):
        channels = {f"{name}.id": values.astype(np.uint32)}
    elif values.ndim == 3:
        channels = {
            f"{name}.{axis}": np.ascontiguousarray(values[..., at], np.float32)
            for at, axis in enumerate("XYZ")
        }
    else:
        channel = "Z" if isinstance(dense.task, DepthTask) else "Y"
        channels = {f"{name}.{channel}": np.ascontiguousarray(values, np.float32)}
    if dense.confidence is not None:
        channels |= _encode(dense.confidence)[2]
    return dense, describe_map(dense, values), channels
