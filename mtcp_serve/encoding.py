"""Response formats: a prediction to the bytes that are sent. A new format is one function and one line."""

from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from io import BytesIO
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.lib.format import write_array

from mtcp_serve.describe import describe
from mtcp_serve.pipeline import Prediction
from mtcp_serve.png import to_png
from mtcp_serve.schemas import PredictOut


@dataclass(frozen=True)
class Format:
    """A response format: what it is called in ``Accept``, and its encoder, which may spread over a pool."""

    media_type: str
    encode: Callable[[Prediction, Executor], bytes]


def encode_pngs(prediction: Prediction, metadata: PredictOut, pool: Executor) -> dict[str, bytes]:
    """A PNG file a map, by task name, compressed in parallel."""
    names = [dense.task.name for dense in prediction.maps]
    infos = [metadata.maps[name] for name in names]
    return dict(zip(names, pool.map(to_png, prediction.maps, infos), strict=True))


def encode_json(prediction: Prediction, pool: Executor) -> bytes:
    """Metadata as JSON, each map in it as a base64 PNG."""
    with prediction.timings.measure("encode"):
        answer = describe(prediction)
        for name, png in encode_pngs(prediction, answer, pool).items():
            answer.maps[name].png = b64encode(png).decode("ascii")
    answer.timings_ms = prediction.timings.ms
    return answer.model_dump_json(exclude_none=True).encode()


def encode_npz(prediction: Prediction, pool: Executor) -> bytes:
    """The arrays as they are, uncompressed, by task name; member ``metadata`` is the JSON as a string."""
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:
        with prediction.timings.measure("encode"):
            answer = describe(prediction)
            for dense in prediction.maps:
                _write_member(archive, dense.task.name, dense.values)
        answer.timings_ms = prediction.timings.ms
        _write_member(archive, "metadata", np.array(answer.model_dump_json(exclude_none=True)))
    return buffer.getvalue()


def _write_member(archive: ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        write_array(member, array, allow_pickle=False)


FORMATS = {
    "json": Format("application/json", encode_json),
    "npz": Format("application/x-npz", encode_npz),
}
"""By name; the first is the default."""
