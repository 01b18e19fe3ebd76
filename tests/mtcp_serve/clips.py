"""Small video files, drawn: each frame has its number in its grey level."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frame ``number``: grey, with a red upper left and a blue lower right corner."""
    frame = np.full((height, width, 3), 40 + 2 * (number % 90), np.uint8)
    frame[: height // 3, : width // 3] = (255, 0, 0)
    frame[-height // 3 :, -width // 3 :] = (0, 0, 255)
    return frame


def write_clip(
    path: Path,
    times: list[int],
    size: tuple[int, int] = (48, 64),
    rotation: int = 0,
    sound: bool = False,
    codec: str = "libx264",
    first_moov: bool = False,
) -> Path:
    """A clip whose frames are shown at ``times`` (units of 1/25 s); ``size`` is height, width."""
    options = {"movflags": "faststart"} if first_moov else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        if codec == "libx264":
            stream.codec_context.options = {"crf": "8", "bf": "0"}
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=16000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size))
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.rate, silence.pts = 16000, 0
            container.mux(voice.encode(silence))
            container.mux(voice.encode(None))
    return path


def read_clip(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """When each frame is shown (seconds), and its pixels."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [float(frame.time or 0) for frame in frames]
        return times, [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
