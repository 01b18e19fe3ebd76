"""Photos on disk to maps on disk."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter

from mtcp_serve.encoding import encode_npz, encode_pngs
from mtcp_serve.errors import RequestError
from mtcp_serve.files import write_atomic
from mtcp_serve.manifest import TaskSpec
from mtcp_serve.pipeline import Pipeline, Prediction, Size
from mtcp_serve.threads import in_thread
from mtcp_serve.timings import Timings
from mtcp_serve.visualize import overview


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: its maps are in ``folder``, unless ``error`` says why not."""

    photo: Path
    folder: Path
    seconds: float
    error: str | None


async def predict_files(
    pipeline: Pipeline, tasks: Sequence[TaskSpec], size: Size, folders: Mapping[Path, Path]
) -> AsyncIterator[Outcome]:
    """Write the maps of each photo (key) into its folder (value).

    Files: ``TASK.png`` for each task, ``maps.npz``, and ``overview.png`` to look at.

    A photo that cannot be read, or whose maps cannot be written, is reported and the next one is done.
    """
    for photo, folder in folders.items():
        start = perf_counter()
        error = None
        try:
            data = await in_thread(photo.read_bytes)
            prediction = await pipeline.predict(data, tasks, size, Timings())
            await in_thread(partial(_write, pipeline, prediction, folder))
        except (RequestError, OSError) as failure:
            error = str(failure)
        yield Outcome(photo, folder, perf_counter() - start, error)


def _write(pipeline: Pipeline, prediction: Prediction, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, png) in encode_pngs(prediction, pipeline.pool).items():
        write_atomic(folder / f"{name}.png", png)
    write_atomic(folder / "maps.npz", encode_npz(prediction, pipeline.pool))
    sheet = BytesIO()
    overview(prediction).save(sheet, "PNG")
    write_atomic(folder / "overview.png", sheet.getvalue())
