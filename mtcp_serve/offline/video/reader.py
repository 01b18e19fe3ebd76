"""A video file to upright RGB frames, one at a time, within the limits of images."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from mtcp_serve.inference.images import ImageInfo, ImageLimits
from mtcp_serve.offline.video import VideoError
from mtcp_serve.offline.video.clock import Clock
from mtcp_serve.offline.video.orientation import Orientation
from mtcp_serve.utils.closing import Closing

CONTAINERS: Final = "mov,matroska,avi,mpegts,mpeg,flv,ogg"
"""None of them refers to other files, as a playlist does."""
_RATE: Final = Fraction(25)
"""Frames a second of a video that does not say."""
_FRAMES: Final = "the frames are"


@dataclass(frozen=True)
class Frame:
    """A frame: its number in the video, and when it is shown, in units of `VideoReader.time_base` from 0."""

    index: int
    time: int
    _frame: av.VideoFrame
    _reader: "VideoReader"

    def pixels(self, of_video: bool = False) -> NDArray[np.uint8]:
        """The upright frame, ``[height, width, 3]`` uint8 RGB; with ``of_video`` in the size of the video."""
        return self._reader.upright(self._frame, of_video)


class VideoReader(Closing):
    """The first video stream of a container. A context manager: it closes the container.

    Raises:
        VideoError: no video that can be decoded.
        ImageTooLargeError: its frames have more pixels, or a longer side, than ``limits``.
    """

    def __init__(self, container: InputContainer, limits: ImageLimits, size: int | None = None) -> None:
        """``size`` is the number of bytes of the file, where it is one."""
        self._container = container
        try:
            self._stream = self._choose(limits)
        except BaseException:
            self._container.close()
            raise
        self._size = size
        self._limits = limits
        self._orientation: Orientation | None = None
        self._start = 0
        rate = self._stream.average_rate or self._stream.guessed_rate or _RATE
        self.rate = Fraction(rate)
        """Frames a second, on average."""
        self.time_base = Fraction(self._stream.time_base or 1 / self.rate)
        """Seconds a unit of time stamps."""
        self._step = max(round(1 / self.rate / self.time_base), 1)
        self.end = 0
        """When the last frame that was decoded ends."""
        self.decoded = 0
        """Frames that were decoded."""
        self.restarts = 0
        """How often the time stamps went back, known when all frames were read."""
        self.resized: int | None = None
        """The first frame whose size is not that of the video, known when it was read."""
        self.fault: str | None = None
        """What was the first thing wrong with the file, known when all frames were read."""

    @classmethod
    def of_file(cls, path: Path, limits: ImageLimits) -> Self:
        """The reader of a file.

        Raises:
            VideoError: no video that can be read, or what the class raises.
        """
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        try:
            container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"not a video that can be read, or cut short ({words_of(error)})") from error
        return cls(container, limits, path.stat().st_size)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def frame_count(self) -> int | None:
        """About how many frames there are, as the header has it."""
        if self._stream.frames:
            return self._stream.frames
        seconds = self._tagged_seconds()
        if seconds is None and self._stream.duration is not None:
            seconds = float(self._stream.duration * self.time_base)
        return None if seconds is None else round(seconds * self.rate)

    @property
    def sound(self) -> bool:
        """Whether there is sound beside the pictures."""
        return bool(self._container.streams.audio)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width (pixels) of the upright frames; of those in the file before one was decoded."""
        return (self._width, self._height) if self._transposed else (self._height, self._width)

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel of the upright frame over its height."""
        ratio = self._stream.sample_aspect_ratio or Fraction(1)
        return 1 / ratio if self._transposed else Fraction(ratio)

    @property
    def _transposed(self) -> bool:
        return self._orientation is not None and self._orientation.transposed

    def info(self, pixels: NDArray[np.uint8]) -> ImageInfo:
        """What is known of a frame."""
        context = self._stream.codec_context
        return ImageInfo(
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=context.name,
            mode=context.pix_fmt or "",
            exif_rotated=self._orientation not in (None, Orientation()),
            animated=False,
        )

    def frames(self, every: int = 1, first: int = 0) -> Iterator[Frame]:
        """Each ``every``-th frame from number ``first`` on; what comes before is decoded, but not shown.

        Damaged frames are left out, or come as the decoder mends them; `fault` says where the first one is.

        Raises:
            ImageTooLargeError: the frames grow beyond the limits on the way.
        """
        clock: Clock | None = None
        for index, frame in enumerate(self._decode()):
            if self._orientation is None:
                self._orientation = Orientation.of(frame)
            if clock is None:
                self._start = frame.pts or 0
                clock = Clock(self._start, self._step, self.time_base)
            time = clock.shown(index, frame.pts)
            self.restarts = clock.restarts
            self.decoded = index + 1
            self.end = time + (frame.duration or self._step)
            self._limits.check_size(frame.width, frame.height, what=_FRAMES)
            if self.resized is None and (frame.width, frame.height) != (self._width, self._height):
                self.resized = index
            if index >= first and index % every == 0:
                yield Frame(index, time, frame, self)
        self._look_for_a_cut()

    def upright(self, frame: av.VideoFrame, of_video: bool) -> NDArray[np.uint8]:
        """``frame`` as RGB, laid as the file says, with ``of_video`` stretched to the size of the video."""
        width, height = (self._width, self._height) if of_video else (frame.width, frame.height)
        pixels: NDArray[Any] = frame.to_ndarray(format="rgb24", width=width, height=height)
        return (self._orientation or Orientation()).upright(pixels)

    def _choose(self, limits: ImageLimits) -> VideoStream:
        for stream in self._container.streams.video:
            context = stream.codec_context
            if context is None or not context.width or not context.height:
                continue
            limits.check_size(context.width, context.height, what=_FRAMES)
            self._width, self._height = context.width, context.height
            context.options = {"max_pixels": str(limits.max_pixels)}
            return stream
        raise VideoError("there is no video stream in it that can be decoded")

    def _decode(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self._lost(words_of(error))
                yield from self._rest()
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self._note("a damaged packet")
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self._note(words_of(error))
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._note("a damaged frame")
                yield frame

    def _rest(self) -> Iterator[av.VideoFrame]:
        """The frames that the decoder still holds."""
        try:
            yield from self._stream.decode(None)
        except av.FFmpegError as error:
            self._note(words_of(error))

    def _note(self, what: str) -> None:
        if self.fault is None:
            seconds = float(self.end * self.time_base)
            self.fault = (
                f"damaged or cut short at or soon after frame {self.decoded} ({seconds:.2f} s): {what}"
            )

    def _lost(self, what: str) -> None:
        """Note that nothing more can be read."""
        self._note(what)

    def _look_for_a_cut(self) -> None:
        """Compare what was decoded with what the header promised."""
        if self._size is None:
            return
        entries = self._stream.index_entries
        size = self._size
        cut = any(entry.pos + entry.size > size for entry in entries)
        if self._container.format.name == "avi":
            cut |= self.decoded < self._stream.frames
        tagged = self._tagged_seconds()
        if tagged is not None:
            cut |= float((self._start + self.end) * self.time_base) < tagged - max(0.5, 3 / float(self.rate))
        if cut and self.fault is None:
            self.fault = f"cut short {self._whereabouts(self.end, 2)}"

    def _whereabouts(self, end: int, digits: int) -> str:
        """Where decoding stopped, at the time ``end``, said to so many ``digits`` of a second."""
        if not self.decoded:
            return "before the first frame"
        return f"after frame {self.decoded - 1} ({float(end * self.time_base):.{digits}f} s)"

    def _tagged_seconds(self) -> float | None:
        """When the stream ends, as Matroska has it."""
        found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", self._stream.metadata.get("DURATION", ""))
        if found is None:
            return None
        hours, minutes, seconds = map(float, found.groups())
        return 3600 * hours + 60 * minutes + seconds


def words_of(error: Exception) -> str:
    """What the library says, without its numbers and file names."""
    return (getattr(error, "strerror", None) or str(error)).split(":")[0]
