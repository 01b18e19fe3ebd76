"""Time stamps that go back: what was joined is shown one after the other."""

from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.video.stream import VideoStream

from mtcp_serve.offline.video.clock import Clock
from mtcp_serve.offline.video.reader import VideoReader
from tests.mtcp_serve.cli.test_cli import run
from tests.mtcp_serve.clips import picture, read_clip, write_clip
from tests.mtcp_serve.offline.test_video import LIMITS


@pytest.mark.parametrize(("ending", "codec"), [("mpg", "mpeg2video"), ("ts", "libx264")])
def test_a_file_joined_of_two_is_shown_as_long_as_both(tmp_path: Path, ending: str, codec: str) -> None:
    whole = write_clip(tmp_path / f"clip.{ending}", list(range(20)), codec=codec)
    whole.write_bytes(2 * whole.read_bytes())
    with VideoReader.of_file(whole, LIMITS) as reader:
        times = [float(frame.time * reader.time_base) for frame in reader.frames()]
        assert float(reader.end * reader.time_base) == pytest.approx(1.6)
        assert reader.restarts == 1
    assert times == pytest.approx([number / 25 for number in range(40)])


@pytest.mark.parametrize("options", [("--video", "depth"), ("--tasks", "depth", "--no-arrays")])
def test_it_is_said(bundle: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    clip = write_clip(tmp_path / "clip.mpg", list(range(20)), codec="mpeg2video")
    clip.write_bytes(2 * clip.read_bytes())
    result = run("predict", clip, "-o", tmp_path / "out", "-b", bundle, *options)
    assert result.exit_code == 0, result.output
    assert "its time stamps go back once; what comes then" in " ".join(result.stderr.split())
    if "--video" in options:
        times, _ = read_clip(tmp_path / "out" / "clip" / "depth.mp4")
        assert times[-1] == pytest.approx(39 / 25, abs=1e-3)


@pytest.mark.parametrize("rate", [2, 25])
def test_frames_out_of_order_set_no_clock_anew(tmp_path: Path, rate: int) -> None:
    """AVI has no time stamps but the order of decoding, which B-frames are not shown in."""
    clip = tmp_path / "clip.avi"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"bf": "8", "b-adapt": "0"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(picture(number))
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader.of_file(clip, LIMITS) as reader:
        times = [frame.time * reader.time_base for frame in reader.frames()]
        assert reader.restarts == 0
    assert len(times) == 40
    assert times[-1] == pytest.approx(39 / rate, abs=2 / rate)


@pytest.mark.parametrize(
    ("stamps", "shown", "restarts"),
    [
        ([0, 2, 1, 3], [0, 2, 3, 4], 0),  # out of order
        ([100, 130, 0, 1, 30, 0, 1], [0, 30, 31, 32, 61, 62, 63], 2),
        ([100, 130, 0, 131, 132], [0, 30, 31, 32, 33], 0),  # one that is wrong
        ([0, 30, None, 0, 1], [0, 30, 31, 32, 33], 1),
        ([0, 30, 500], [0, 30, 500], 0),  # a gap
    ],
)
def test_when_frames_are_shown(stamps: list[int | None], shown: list[int], restarts: int) -> None:
    clock = Clock(stamps[0] or 0, 1, Fraction(1, 25))
    assert [clock.shown(index, stamp) for index, stamp in enumerate(stamps)] == shown
    assert clock.restarts == restarts
