"""Videos on disk: the maps of their frames, or rendered videos of them.

Without one every frame is treated as an image is; its files are in ``OUT/STEM/frames/NUMBER``, where
``NUMBER`` counts all frames of the video from 0. A rendered video is an MP4 (H.264, yuv420p, BT.709, no
sound) in ``OUT/STEM``, one per `Layer`, as large as the video and with its time stamps; an odd side is made
even by repeating the last row or column. ``metadata.json``, there and in ``frames``, is written last, as with
images.

Frames are decoded, predicted and written one by one. A rendered video is encoded in segments of `SEGMENT`
frames, which are joined at the end; a run that was killed goes on after the last segment, and the video
comes out as if nothing had happened.

PyAV does the decoding and encoding (the extra ``video``); this level does without it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mtcp_serve.errors import MtcpServeError
from mtcp_serve.inference.registry import Choice

Progress = Callable[[int, int | None], object]
"""Told how many frames of a video are done, and of how many where that is known."""

SEGMENT = 64
"""Frames that are encoded together: what is lost, at most, when the process is killed."""


class VideoError(MtcpServeError):
    """A file is not a video that can be decoded, or its pictures cannot be encoded."""


@dataclass(frozen=True)
class Layer:
    """A rendered video of the colours of a task: alone, or laid over the video with ``opacity`` (0 to 1)."""

    choice: Choice
    opacity: float | None = None

    @property
    def name(self) -> str:
        """The name of its file, without the ending."""
        task = self.choice.task.name
        return task if self.opacity is None else f"{task}-overlay"


@dataclass(frozen=True)
class VideoOptions:
    """What is made of each ``every``-th frame of a video: videos of ``layers``, or maps if there is none."""

    layers: tuple[Layer, ...] = ()
    every: int = 1
    smooth: float = 0.0
    """Share of the past in a map where nothing moves (`mtcp_serve.offline.video.smoothing`)."""
