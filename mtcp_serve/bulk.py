"""Photos on disk to maps on disk."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter

from mtcp_serve.errors import RequestError
from mtcp_serve.files import write_atomic
from mtcp_serve.formats.npz import NpzWriter
from mtcp_serve.formats.writer import encode_maps
from mtcp_serve.images import ImageLimits, Photo, decode
from mtcp_serve.models import Choice
from mtcp_serve.pipeline import Prediction, Size, predict
from mtcp_serve.threads import in_thread
from mtcp_serve.timings import Timings
from mtcp_serve.visualize import CELL, overview


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: its maps are in ``folder``, unless ``error`` says why not."""

    photo: Path
    folder: Path
    seconds: float
    error: str | None


async def predict_files(
    choices: Sequence[Choice], size: Size, limits: ImageLimits, folders: Mapping[Path, Path]
) -> AsyncIterator[Outcome]:
    """Write the maps of each photo (key) into its folder (value).

    Files: ``TASK.png`` for each task, ``maps.npz``, and ``overview.png`` to look at.

    A photo that cannot be read, or whose maps cannot be written, is reported and the next one is done.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for photo, folder in folders.items():
            start = perf_counter()
            error = None
            try:
                data = await in_thread(photo.read_bytes)
                prediction = await predict(data, choices, size, limits, Timings())
                picture = await in_thread(partial(decode, data, limits, enough=CELL))
                await in_thread(partial(_write, pool, picture, prediction, folder))
            except (RequestError, OSError) as failure:
                error = str(failure)
            yield Outcome(photo, folder, perf_counter() - start, error)


def _write(pool: Executor, photo: Photo, prediction: Prediction, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, encoded in encode_maps(prediction, pool).items():
        write_atomic(folder / f"{name}.png", encoded.png)
    npz = NpzWriter(pool)
    write_atomic(folder / "maps.npz", npz.finish(npz.add(prediction)))
    sheet = BytesIO()
    overview(photo, prediction).save(sheet, "PNG")
    write_atomic(folder / "overview.png", sheet.getvalue())
