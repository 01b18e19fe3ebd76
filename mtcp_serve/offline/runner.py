"""Images and videos on disk to results on disk."""

import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from errno import ENAMETOOLONG
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import perf_counter

from mtcp_serve.errors import MtcpServeError
from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.offline.image import predict_image, read_image_file
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.live import Live
from mtcp_serve.offline.video import Progress
from mtcp_serve.offline.writer import Done, OutputRequest
from mtcp_serve.utils.atomic import NoRoomError, partial_folder
from mtcp_serve.utils.concurrency import in_thread


@dataclass(frozen=True)
class Outcome:
    """What became of an image or video: its results are in ``item.folder``, unless ``error`` says why not.

    Of a damaged video there may be results as well: of what could be decoded.
    """

    item: Item
    seconds: float
    error: str | None = None
    skipped: bool = False
    """The results were there before."""
    notes: tuple[str, ...] = ()


async def predict_files(
    items: Iterable[Item],
    requested: OutputRequest,
    limits: ImageLimits,
    progress: Progress = lambda done, total: None,
    live: Live | None = None,
) -> AsyncIterator[Outcome]:
    """Write the results of each image and video into its folder; ``progress`` is told of a video's frames.

    ``live`` says how cameras, streams and addresses are read (`mtcp_serve.offline.live`).

    Files of an image: ``TASK.png`` for each task and ``TASK_confidence.png`` where that is requested,
    ``maps.npz``, ``overview.png`` to look at, and ``metadata.json`` (`mtcp_serve.offline.results`), all of
    them or none; those of a video: `mtcp_serve.offline.video`.

    One that cannot be read, or whose results cannot be written, is reported and the next one is done.

    Raises:
        NoRoomError: the disk is full, so that nothing more can be written.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for item in items:
            start = perf_counter()
            done, error = Done(), None
            try:
                if item.address is not None:
                    from mtcp_serve.offline.live.predict import predict_address

                    done = await predict_address(
                        item.address, item, requested, limits, pool, progress, live or Live()
                    )
                    error = done.fault
                elif item.video:
                    from mtcp_serve.offline.video.predict import predict_video

                    done = await predict_video(item, requested, limits, pool, progress)
                    error = done.fault
                else:
                    data = await in_thread(partial(read_image_file, item.path, limits))
                    done = await predict_image(data, item.path.name, item.folder, requested, limits, pool)
            except NoRoomError:
                raise
            except MtcpServeError as failure:
                error = str(failure)
            except OSError as failure:
                error = _too_long(item) if failure.errno == ENAMETOOLONG else str(failure)
            yield Outcome(item, perf_counter() - start, error, done.skipped, done.notes)


def _too_long(item: Item) -> str:
    """What to do about results that would be called more than the file system has names for."""
    *_, there = takewhile(Path.exists, reversed(item.folder.absolute().parents))
    most = os.pathconf(there, "PC_NAME_MAX")  # only POSIX says that a name is too long
    length = len(os.fsencode(item.folder.name))
    room = most - len(os.fsencode(partial_folder(item.folder).name)) + length
    if length <= room:
        return "the path of its results is longer than this system takes; give an --out with a shorter path"
    do = "rename the file" if item.address is None else "download it to a file with a shorter name"
    return (
        f"its name has {length} bytes without the ending, and that of a folder of results may have {room} "
        f"there; {do}, then give the same command again"
    )
