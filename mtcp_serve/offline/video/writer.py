"""RGB frames to an H.264 video, segment by segment."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from mtcp_serve.offline.video import SEGMENT

_OPTIONS = {"crf": "20", "preset": "veryfast", "x264-params": "cpu-independent=1"}
_BT709 = 1


class SegmentEncoder:
    """Encodes some frames ``[height, width, 3]`` uint8 RGB as an MP4 file in memory.

    The first is a key frame and no frame refers to a later one, so segments can be joined (`join`); one
    thread encodes, and x264 leaves out what it computes in another way on another processor, so that the
    same frames give the same bytes wherever that is done. ``time_base`` is seconds a unit of time stamps,
    ``aspect`` the width of a pixel over its height.
    """

    def __init__(
        self, height: int, width: int, time_base: Fraction, rate: Fraction, aspect: Fraction
    ) -> None:
        self._file = BytesIO()
        self._container = av.open(self._file, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=rate, options=dict(_OPTIONS))
        context = self._stream.codec_context
        context.height, context.width = height + height % 2, width + width % 2
        context.pix_fmt = "yuv420p"
        context.time_base = self._time_base = time_base
        context.sample_aspect_ratio = aspect
        context.gop_size, context.max_b_frames = SEGMENT, 0
        context.thread_count, context.thread_type = 1, ThreadType.NONE
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG

    def add(self, pixels: NDArray[np.uint8], time: int) -> None:
        """Encode a frame that is shown from ``time`` on."""
        height, width = pixels.shape[:2]
        even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = time, self._time_base
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> bytes:
        """The MP4 file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()


def join(
    segments: Iterable[Path], times: Sequence[int], end: int, time_base: Fraction, file: BinaryIO
) -> None:
    """Write the frames of ``segments``, in order, as one MP4 video, without encoding them again.

    Frame ``i`` is shown from ``times[i]`` on and the last until ``end``, in units of ``time_base``.

    Raises:
        OSError: ``file`` cannot be written.
    """
    ends = [*times[1:], max(end, times[-1] + 1)]
    shown = zip(times, ends, strict=True)
    with av.open(file, "w", format="mp4") as output:
        target = None
        for segment in segments:
            with av.open(str(segment.absolute())) as container:
                source = container.streams.video[0]
                if target is None:
                    target = output.add_stream_from_template(source)
                    target.time_base = time_base
                for packet in container.demux(source):
                    if not packet.size:
                        continue
                    begin, until = next(shown)
                    packet.stream, packet.time_base = target, time_base
                    packet.pts = packet.dts = begin
                    packet.duration = until - begin
                    output.mux(packet)
