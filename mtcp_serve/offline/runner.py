"""Photos and videos on disk to results on disk."""

import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from mtcp_serve.errors import MtcpServeError, PayloadTooLargeError
from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.inference.pipeline import predict
from mtcp_serve.inference.timings import Timings
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.results import finished
from mtcp_serve.offline.video import Progress
from mtcp_serve.offline.writer import Done, Wanted, write_result
from mtcp_serve.outputs.visualize import CELL
from mtcp_serve.utils.atomic import NoRoomError
from mtcp_serve.utils.concurrency import in_thread


@dataclass(frozen=True)
class Outcome:
    """What became of a photo or video: its results are in ``item.folder``, unless ``error`` says why not.

    Of a damaged video there may be results as well: of what could be decoded.
    """

    item: Item
    seconds: float
    error: str | None = None
    skipped: bool = False
    """The results were there before."""
    notes: tuple[str, ...] = ()


async def predict_files(
    items: Iterable[Item], wanted: Wanted, limits: ImageLimits, progress: Progress = lambda done, total: None
) -> AsyncIterator[Outcome]:
    """Write the results of each photo and video into its folder; ``progress`` is told of a video's frames.

    Files of a photo: ``TASK.png`` for each task, ``maps.npz``, ``overview.png`` to look at, and
    ``metadata.json`` (`mtcp_serve.offline.results`), all of them or none; those of a video:
    `mtcp_serve.offline.video`.

    One that cannot be read, or whose results cannot be written, is reported and the next one is done.

    Raises:
        NoRoomError: the disk is full, so that nothing more can be written.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for item in items:
            start = perf_counter()
            done, error = Done(), None
            try:
                if item.video:
                    from mtcp_serve.offline.video.predict import predict_video

                    done = await predict_video(item, wanted, limits, pool, progress)
                    error = done.fault
                else:
                    done = await _predict_photo(item, wanted, limits, pool)
            except NoRoomError:
                raise
            except (MtcpServeError, OSError) as failure:
                error = str(failure)
            yield Outcome(item, perf_counter() - start, error, done.skipped, done.notes)


async def _predict_photo(item: Item, wanted: Wanted, limits: ImageLimits, pool: Executor) -> Done:
    data = await in_thread(partial(_read, item.path, limits))
    made_from = wanted.made_from({"file": item.path.name, "sha256": sha256(data).hexdigest()})
    if not wanted.overwrite and finished(item.folder, made_from):
        return Done(skipped=True)
    prediction = await predict(
        data,
        wanted.choices,
        wanted.size,
        limits,
        Timings(),
        camera=wanted.camera,
        keep_photo=wanted.keep_photo,
    )
    sheet = wanted.overview and not wanted.formats
    photo = await in_thread(partial(decode, data, limits, enough=CELL)) if sheet else None
    await in_thread(partial(write_result, item.folder, prediction, photo, wanted, made_from, pool))
    return Done()


def _read(path: Path, limits: ImageLimits) -> bytes:
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise PayloadTooLargeError(f"the image has {size} bytes, the limit is {limits.max_bytes}")
    return path.read_bytes()
