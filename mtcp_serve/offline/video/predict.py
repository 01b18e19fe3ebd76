"""A video on disk to rendered videos of its maps, or to the maps of its frames."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.inference.camera import CameraRequest
from mtcp_serve.inference.images import DecodedImage, ImageLimits
from mtcp_serve.inference.pipeline import DenseMaps, Size, infer_maps, input_sizes, refined
from mtcp_serve.inference.registry import Choice
from mtcp_serve.inference.timings import Timings
from mtcp_serve.offline.inputs import Item
from mtcp_serve.offline.results import (
    METADATA_FILE,
    discard,
    fingerprints,
    finished,
    metadata,
    publish,
    sha256,
)
from mtcp_serve.offline.video import SEGMENT, Progress, VideoError
from mtcp_serve.offline.video.drawing import draw_frame
from mtcp_serve.offline.video.reader import Frame, VideoReader
from mtcp_serve.offline.video.segments import Segments
from mtcp_serve.offline.video.smoothing import Smoother
from mtcp_serve.offline.video.writer import SegmentEncoder, join
from mtcp_serve.offline.writer import Done, OutputRequest, write_result
from mtcp_serve.outputs.picture import Style
from mtcp_serve.utils.atomic import Staging, partial_folder, room, write_atomic
from mtcp_serve.utils.concurrency import in_thread


async def predict_video(
    item: Item, requested: OutputRequest, limits: ImageLimits, pool: Executor, progress: Progress
) -> Done:
    """Write the videos that ``requested`` names, or the maps of the frames; see `mtcp_serve.offline.video`.

    Raises:
        VideoError: the file is not a video, or no frame can be decoded.
        ImageTooLargeError: the frames exceed ``limits``.
        NoRoomError: the disk is full.
        OSError: the video cannot be read, or the results not be written.
    """
    source = {"file": item.path.name, "sha256": await in_thread(partial(sha256, item.path))}
    folder, made_from = target(item, requested, source)
    found = None if requested.overwrite else finished(folder, made_from)
    if found:
        return Done(skipped=True, fault=found["fault"])
    reader = await in_thread(partial(VideoReader.of_file, item.path, limits))
    with reader:
        return await write_video(reader, folder, requested, made_from, pool, progress)


def target(item: Item, requested: OutputRequest, source: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder for the results of the video ``source``, and what they will have been made from."""
    video = requested.video
    if video.layers:
        folder, made_from = item.folder, _video_made_from(requested, source)
    else:
        folder, made_from = item.folder / "frames", {**requested.made_from(source), "every": video.every}
    if video.smooth:
        made_from["smooth"] = video.smooth
    return folder, made_from


async def write_video(
    reader: VideoReader,
    folder: Path,
    requested: OutputRequest,
    made_from: dict[str, Any],
    pool: Executor,
    progress: Progress,
) -> Done:
    """Write what ``requested`` asks for of the frames that ``reader`` gives into ``folder``.

    Raises:
        VideoError: no frame can be decoded.
        NoRoomError: the disk is full.
        OSError: the results cannot be written.
    """
    if requested.video.layers:
        return await _write_videos(reader, folder, requested, made_from, progress)
    return await _write_frames(reader, folder, requested, made_from, pool, progress)


def _video_made_from(requested: OutputRequest, source: dict[str, Any]) -> dict[str, Any]:
    video = requested.video
    made_from: dict[str, Any] = {
        "source": source,
        "models": fingerprints(layer.choice.manifest for layer in video.layers),
        "films": {layer.name: layer.opacity for layer in video.layers},
        "every": video.every,
    }
    if requested.style != Style():
        made_from["style"] = asdict(requested.style)
    if requested.refine:
        made_from["refine"] = True
    return made_from


async def _write_videos(
    reader: VideoReader, folder: Path, requested: OutputRequest, made_from: dict[str, Any], progress: Progress
) -> Done:
    names = [layer.name for layer in requested.video.layers]
    work = partial_folder(folder)
    staging = Staging(work / "films")
    with room(folder, staging):
        segments = await in_thread(partial(Segments, work, names, made_from))
        notes = await _encode(reader, segments, requested, staging, progress)
        if not segments.times:
            shutil.rmtree(work)
            raise VideoError(f"no frame of it can be decoded; {reader.fault or 'there is none'}")
        await in_thread(partial(_join, reader, segments, names, staging))
        response = {"frames": len(segments.times), "seconds": float(reader.end * reader.time_base)}
        files = [f"{name}.mp4" for name in names]
        staging.write(METADATA_FILE, metadata(made_from, files, response, reader.fault))
        publish(staging, folder)
    shutil.rmtree(work)
    return Done(fault=reader.fault, notes=notes)


async def _encode(
    reader: VideoReader, segments: Segments, requested: OutputRequest, staging: Staging, progress: Progress
) -> tuple[str, ...]:
    """Add the segments that are not there yet; what is to be said of them."""
    video = requested.video
    choices = tuple({layer.choice.task.name: layer.choice for layer in video.layers}.values())
    times: list[int] = []
    encoders: dict[str, SegmentEncoder] = {}
    notes = ["its sound is left out"] if reader.sound else []

    def encode(frame: Frame, pixels: NDArray[np.uint8], prediction: DenseMaps) -> None:
        maps = {dense.task.name: dense for dense in prediction.maps}
        for layer in video.layers:
            picture = draw_frame(layer, maps[layer.choice.task.name], pixels, requested.style)
            if layer.name not in encoders:
                height, width = picture.shape[:2]
                encoders[layer.name] = SegmentEncoder(
                    height, width, reader.time_base, reader.rate, reader.aspect
                )
            encoders[layer.name].add(picture, frame.time)
        times.append(frame.time)

    def keep() -> None:
        made = {name: encoder.finish() for name, encoder in encoders.items()}
        staging.bytes = sum(map(len, made.values()))
        segments.add(list(times), made)
        times.clear()
        encoders.clear()

    smoother = Smoother(video.smooth) if video.smooth else None
    done = len(segments.times)
    skipped = 0 if smoother else done  # a smoother has to see the frames before
    async for frame in _frames(reader, video.every, skipped * video.every):
        pixels = await in_thread(partial(frame.pixels, of_video=True))
        prediction = await _predict(
            reader, pixels, choices, "input", smoother=smoother, refine=requested.refine
        )
        if skipped < done:
            skipped += 1
            continue
        await in_thread(partial(encode, frame, pixels, prediction))
        if len(times) == SEGMENT:
            await in_thread(keep)
        progress(len(segments.times) + len(times), _total(reader, video.every))
    if times:
        await in_thread(keep)
    height, width = reader.shape
    if height % 2 or width % 2:
        notes.append(f"{width} x {height} was padded to even sides, as H.264 needs them")
    if reader.resized is not None:
        notes.append(f"from frame {reader.resized} on some have other sizes; stretched to {width} x {height}")
    return (*notes, *_say_restarts(reader))


def _join(reader: VideoReader, segments: Segments, names: Sequence[str], staging: Staging) -> None:
    """Make the rendered videos of their segments."""
    shutil.rmtree(staging.folder, ignore_errors=True)
    staging.folder.mkdir()
    staging.bytes = sum(path.stat().st_size for name in names for path in segments.files(name))
    for name in names:
        with (staging.folder / f"{name}.mp4").open("xb") as file:
            join(segments.files(name), segments.times, reader.end, reader.time_base, file)
            file.flush()
            os.fsync(file.fileno())


async def _write_frames(
    reader: VideoReader,
    folder: Path,
    requested: OutputRequest,
    made_from: dict[str, Any],
    pool: Executor,
    progress: Progress,
) -> Done:
    names: list[str] = []
    every = requested.video.every
    smoother = Smoother(requested.video.smooth) if requested.video.smooth else None
    async for frame in _frames(reader, every, 0):
        name = f"{frame.index:06d}"
        time = round(float(frame.time * reader.time_base), 6)
        source = {**made_from["source"], "frame": frame.index, "seconds": time}
        frame_made_from = requested.made_from(source)
        if smoother:
            frame_made_from["smooth"] = requested.video.smooth
        wanting = requested.overwrite or not finished(folder / name, frame_made_from)
        if wanting or smoother:
            pixels = await in_thread(frame.pixels)
            prediction = await _predict(
                reader,
                pixels,
                requested.choices,
                requested.size,
                requested.camera,
                smoother,
                requested.refine,
            )
        if wanting:
            image = DecodedImage(Image.fromarray(pixels), prediction.image)
            prediction = replace(prediction, decoded=image)
            await in_thread(
                partial(write_result, folder / name, prediction, image, requested, frame_made_from, pool)
            )
        names.append(name)
        progress(len(names), _total(reader, every))
    if not names:
        raise VideoError(f"no frame of it can be decoded; {reader.fault or 'there is none'}")
    with room(folder, Staging(folder)):
        await in_thread(partial(_finish_frames, folder, names, made_from, reader.fault))
    notes = []
    if reader.aspect != 1 and requested.camera.intrinsics is None:
        notes.append(
            f"its pixels are {reader.aspect} as wide as high, and the camera takes them for square; "
            "--intrinsics says how they are"
        )
    return Done(fault=reader.fault, notes=(*notes, *_say_restarts(reader)))


def _finish_frames(folder: Path, names: Sequence[str], made_from: dict[str, Any], fault: str | None) -> None:
    """Say that all frames are there, and delete those of other choices of frames."""
    for other in folder.iterdir():
        if other.is_dir() and other.name.isdigit() and other.name not in names:
            discard(other)
            if not any(other.iterdir()):
                other.rmdir()
    files = [f"{name}/{METADATA_FILE}" for name in names]
    write_atomic(folder / METADATA_FILE, metadata(made_from, files, {"frames": len(names)}, fault))


def _say_restarts(reader: VideoReader) -> tuple[str, ...]:
    if not reader.restarts:
        return ()
    often = "once" if reader.restarts == 1 else f"{reader.restarts} times"
    return (f"its time stamps go back {often}; what comes then is shown after what was before",)


async def _frames(reader: VideoReader, every: int, first: int) -> AsyncIterator[Frame]:
    """`VideoReader.frames` beside the event loop."""
    frames = reader.frames(every, first)
    while (frame := await in_thread(partial(next, frames, None))) is not None:
        yield frame


async def _predict(
    reader: VideoReader,
    pixels: NDArray[np.uint8],
    choices: Sequence[Choice],
    size: Size,
    camera: CameraRequest | None = None,
    smoother: Smoother | None = None,
    refine: bool = False,
) -> DenseMaps:
    """The maps of an upright frame, ``[height, width, 3]`` uint8 RGB."""
    image = DecodedImage(Image.fromarray(pixels), reader.info(pixels))
    inputs = await in_thread(lambda: {size: image.resized(*size) for size in input_sizes(choices)})
    found = await infer_maps(image.info, inputs, choices, size, Timings(), camera)
    if smoother is not None:
        found = await in_thread(partial(smoother, found, inputs))
    return refined(found, image) if refine else found


def _total(reader: VideoReader, every: int) -> int | None:
    return None if reader.frame_count is None else -(-reader.frame_count // every)
