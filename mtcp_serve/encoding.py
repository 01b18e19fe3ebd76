"""Response formats: a prediction to the bytes that are sent. A new format is one function and one line.

Encoders resize and encode map by map, one a thread at most, and let go of each array when it is encoded: at
the size of a large photo all of them together are hundreds of megabytes.
"""

from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.lib.format import write_array
from numpy.typing import NDArray

from mtcp_serve.describe import describe, describe_map
from mtcp_serve.pipeline import DenseMap, Prediction
from mtcp_serve.png import to_png
from mtcp_serve.schemas import MapOut


@dataclass(frozen=True)
class Format:
    """A response format: what it is called in ``Accept``, and its encoder, which may spread over a pool."""

    media_type: str
    encode: Callable[[Prediction, Executor], bytes]


def encode_pngs(prediction: Prediction, pool: Executor) -> dict[str, tuple[MapOut, bytes]]:
    """The metadata and the PNG file of each map, by task name, made in parallel."""
    names = [dense.task.name for dense in prediction.maps]
    made = pool.map(partial(_encode_png, prediction.manifest.name), prediction.maps)
    return dict(zip(names, made, strict=True))


def _encode_png(model: str, dense: DenseMap) -> tuple[MapOut, bytes]:
    values = dense.values()
    metadata = describe_map(model, dense, values)
    return metadata, to_png(dense.task, values, metadata)


def encode_json(prediction: Prediction, pool: Executor) -> bytes:
    """Metadata as JSON, each map in it as a base64 PNG."""
    with prediction.timings.measure("encode"):
        maps = {}
        for name, (metadata, png) in encode_pngs(prediction, pool).items():
            metadata.png = b64encode(png).decode("ascii")
            maps[name] = metadata
    return describe(prediction, maps).model_dump_json(exclude_none=True).encode()


def encode_npz(prediction: Prediction, _: Executor) -> bytes:
    """The arrays as they are, uncompressed, by task name; member ``metadata`` is the JSON as a string."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:
        with prediction.timings.measure("encode"):
            maps = {}
            for dense in prediction.maps:
                values = dense.values()
                maps[dense.task.name] = describe_map(prediction.manifest.name, dense, values)
                _write_member(archive, dense.task.name, values)
        metadata = describe(prediction, maps).model_dump_json(exclude_none=True)
        _write_member(archive, "metadata", np.array(metadata))
    return buffer.getvalue()


def _write_member(archive: ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        write_array(member, array, allow_pickle=False)


FORMATS = {
    "json": Format("application/json", encode_json),
    "npz": Format("application/x-npz", encode_npz),
}
"""By name; the first is the default."""
