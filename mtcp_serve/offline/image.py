"""One image to the folder of its results."""

from concurrent.futures import Executor
from functools import partial
from hashlib import sha256
from pathlib import Path

from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.inference.pipeline import predict
from mtcp_serve.inference.timings import Timings
from mtcp_serve.offline.results import finished
from mtcp_serve.offline.writer import Done, OutputRequest, write_result
from mtcp_serve.outputs.visualize import CELL
from mtcp_serve.utils.concurrency import in_thread


async def predict_image(
    data: bytes, name: str, folder: Path, requested: OutputRequest, limits: ImageLimits, pool: Executor
) -> Done:
    """Write the results of the image in ``data``, which is called ``name``, into ``folder``.

    Raises:
        RequestError: it cannot be read.
        OSError: the results cannot be written.
    """
    made_from = requested.made_from({"file": name, "sha256": sha256(data).hexdigest()})
    if not requested.overwrite and finished(folder, made_from):
        return Done(skipped=True)
    prediction = await predict(
        data,
        requested.choices,
        requested.size,
        limits,
        Timings(),
        camera=requested.camera,
        keep_image=requested.keep_image,
        refine=requested.refine,
        distances=requested.distances,
    )
    sheet = requested.overview and not requested.formats
    image = await in_thread(partial(decode, data, limits, enough=CELL)) if sheet else None
    await in_thread(partial(write_result, folder, prediction, image, requested, made_from, pool))
    return Done()


def read_image_file(path: Path, limits: ImageLimits) -> bytes:
    """The bytes of a file.

    Raises:
        PayloadTooLargeError: there are more than ``limits`` allow.
        OSError: it cannot be read.
    """
    limits.check_bytes(path.stat().st_size)
    return path.read_bytes()
