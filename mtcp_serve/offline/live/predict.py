"""A camera, a stream, or what a web address has, to the folder of its results."""

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.offline.image import predict_image
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.live import Live, LiveError
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.live.fetch import fetch
from mtcp_serve.offline.live.reader import LiveReader, open_body, open_camera, open_rtsp, say_end
from mtcp_serve.offline.results import read_metadata
from mtcp_serve.offline.video import Progress, VideoError
from mtcp_serve.offline.video.predict import predict_video, target, write_video
from mtcp_serve.offline.writer import Done, OutputRequest
from mtcp_serve.utils.concurrency import in_thread

_NO_LENGTH: Final = (
    "the server announces no length, so it was taken for a live stream; download it and give the file"
)


async def predict_address(
    address: Address,
    item: Item,
    requested: OutputRequest,
    limits: ImageLimits,
    pool: Executor,
    progress: Progress,
    live: Live,
) -> Done:
    """Write the results of ``address`` into the item's folder: those of an image, or of a video.

    A stream has its results in the same places as a video, of the frames that were taken.

    Raises:
        LiveError: it cannot be read, may not be, or there is a recording in the folder already.
        MtcpServeError, OSError: what images and videos raise.
    """
    if address.is_camera or address.scheme in ("rtsp", "rtsps"):
        open = open_camera if address.is_camera else open_rtsp
        return await _record(
            partial(open, address, limits, live), address, item, requested, pool, progress, live
        )
    with ExitStack() as stack:
        found = await in_thread(
            lambda: stack.enter_context(fetch(address, live.allow_private, limits, live.stop)),
            on_cancel=live.stop.set,
        )
        if found.picture is not None:
            return await predict_image(found.picture, address.file, item.folder, requested, limits, pool)
        if found.video is not None:
            _refuse_bounds(live, address)
            return await predict_video(replace(item, path=found.video), requested, limits, pool, progress)
        if found.stream is None:
            raise LiveError("it has nothing")
        body = found.stream
        start = partial(open_body, address, body, limits, live)
        doubt = "" if body.is_multipart else _NO_LENGTH
        return await _record(start, address, item, requested, pool, progress, live, doubt)


async def _record(
    start: Callable[[], LiveReader],
    address: Address,
    item: Item,
    requested: OutputRequest,
    pool: Executor,
    progress: Progress,
    live: Live,
    doubt: str = "",
) -> Done:
    """``doubt`` is what to say of a stream that ended before all its frames were taken: it may be a file."""
    began = datetime.now(UTC).isoformat(timespec="milliseconds")
    folder, made_from = target(item, requested, {"stream": address.shown, "began": began})
    if read_metadata(folder) is not None and not requested.overwrite:
        raise LiveError(
            f"{folder} has results already: keep them by another --out, or replace them by --overwrite"
        )
    with await in_thread(start) as reader:
        try:
            done = await write_video(reader, folder, requested, made_from, pool, progress)
        except VideoError as error:
            if live.stop.is_set():
                raise LiveError("interrupted before the first frame") from error
            raise VideoError(f"{error}; {doubt}" if doubt else str(error)) from error
        doubts = (doubt,) if doubt and reader.ended and reader.dropped else ()
        return replace(done, notes=(*done.notes, *say_end(reader), *doubts))


def _refuse_bounds(live: Live, address: Address) -> None:
    if live.frames is not None or live.seconds is not None:
        raise LiveError("it is a video file; --frames and --seconds are for cameras and streams")
