"""Videos: what comes out, what damaged ones give, and that an interruption leaves no trace."""

import json
import shutil
import signal
import struct
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from mtcp_serve.errors import ImageTooLargeError
from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.offline.video import SEGMENT, VideoError, writer
from mtcp_serve.offline.video.reader import VideoReader
from mtcp_serve.offline.video.writer import SegmentEncoder
from tests.mtcp_serve import command
from tests.mtcp_serve.cli.test_cli import run
from tests.mtcp_serve.clips import picture, read_clip, write_clip
from tests.mtcp_serve.support import encode

CORNER, MIDDLE = np.s_[2:12, 2:16], np.s_[20:28, 26:40]
"""Of a clip's frames: one colour each, away from edges, which coding and resizing blur."""
LIMITS = ImageLimits(10**9, 10**7, 5000)


def test_a_video_keeps_size_frames_and_time_stamps(bundle: Path, tmp_path: Path) -> None:
    times = [0, 1, 2, 7, 8, 20]  # a variable frame rate
    clip = write_clip(tmp_path / "clip.mp4", times, sound=True)
    result = run("predict", clip, "-o", tmp_path / "out", "-b", bundle, "--video", "saliency")
    assert result.exit_code == 0, result.output
    assert "sound is left out" in result.stderr
    shown, frames = read_clip(tmp_path / "out" / "clip" / "saliency.mp4")
    assert shown == [time / 25 for time in times]
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    for frame, source in zip(frames, read_clip(clip)[1], strict=True):
        difference = np.abs(frame.astype(int) - source[..., :1])  # saliency of the tiny bundle: red / 255
        assert max(difference[place].max() for place in (CORNER, MIDDLE)) <= 3


def test_the_last_frame_of_every_third_is_shown_to_the_end(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", list(range(12)))
    run("predict", clip, "-o", tmp_path / "out", "-b", bundle, "--overlay", "depth:0.25", "--every", "3")
    film = tmp_path / "out" / "clip" / "depth-overlay.mp4"
    assert read_clip(film)[0] == [0, 3 / 25, 6 / 25, 9 / 25]
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.duration * (stream.time_base or 0) == Fraction(12, 25)


def test_an_overlay_is_a_blend(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0])
    run("predict", clip, "-o", tmp_path, "-b", bundle, "--video", "saliency", "--overlay", "saliency:0.25")
    alone, over = (read_clip(tmp_path / "clip" / f"saliency{end}.mp4")[1][0] for end in ("", "-overlay"))
    source = read_clip(clip)[1][0]
    blend = 0.75 * source + 0.25 * alone
    assert max(np.abs(over - blend)[place].max() for place in (CORNER, MIDDLE)) <= 6


def test_depth_has_the_same_colours_in_every_frame(bundle: Path, tmp_path: Path) -> None:
    """The corners have the same depth in all frames, while the rest of the frame gets ever farther."""
    clip = write_clip(tmp_path / "clip.mp4", list(range(30)))
    run("predict", clip, "-o", tmp_path, "-b", bundle, "--video", "depth")
    _, frames = read_clip(tmp_path / "clip" / "depth.mp4")
    corner = np.array([frame[CORNER].mean((0, 1)) for frame in frames])
    middle = np.array([frame[MIDDLE].mean((0, 1)) for frame in frames])
    assert np.ptp(corner, axis=0).max() < 4
    assert np.ptp(middle, axis=0).max() > 20


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-6, 5)), (-90, (5, -6)), (180, (-6, -6))])
def test_a_rotated_video_is_brought_upright(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    """A counter-clockwise quarter turn brings the red upper left corner to the lower left."""
    clip = write_clip(tmp_path / "clip.mp4", [0, 1], rotation=rotation)
    with VideoReader.of_file(clip, LIMITS) as reader:
        pixels = [frame.pixels() for frame in reader.frames()]
        assert reader.shape == ((64, 48) if rotation != 180 else (48, 64))
        assert reader.fault is None
    assert [frame.shape[:2] for frame in pixels] == [reader.shape] * 2
    red = pixels[0][corner].astype(int)
    assert red[0] > 200
    assert red[1:].max() < 60


@pytest.mark.parametrize(("a", "b"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
@pytest.mark.parametrize("determinant", [1, -1])
def test_a_turned_or_mirrored_video_is_brought_upright(
    tmp_path: Path, a: int, b: int, determinant: int
) -> None:
    """The file's matrix (a, b; c, d) shows the pixel that is (x, y) from the middle at (ax + cy, bx + dy)."""
    c, d = -b * determinant, a * determinant
    clip = _with_matrix(write_clip(tmp_path / "clip.mp4", [0, 1]), a, b, c, d)
    with VideoReader.of_file(clip, LIMITS) as reader:
        pixels = [frame.pixels() for frame in reader.frames()]
        assert reader.shape == ((64, 48) if b else (48, 64))
        assert reader.info(pixels[0]).exif_rotated == ((a, d) != (1, 1))
    assert [frame.shape[:2] for frame in pixels] == [reader.shape] * 2
    for x, y, color in ((-26, -18, 0), (26, 18, 2)):  # the red and the blue corner
        height, width = reader.shape
        seen = pixels[1][height // 2 + b * x + d * y, width // 2 + a * x + c * y].astype(int)
        assert seen[color] > 200
        assert np.delete(seen, color).max() < 60


def _with_matrix(clip: Path, a: int, b: int, c: int, d: int) -> Path:
    """``clip``, an MP4 of one track, with this matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(clip.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # of version 0
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    clip.write_bytes(data)
    return clip


def test_odd_sides_are_padded(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [0, 1], size=(47, 63))
    result = run("predict", clip, "-o", tmp_path, "-b", bundle, "--video", "saliency")
    assert "63 x 47 was padded" in result.stderr
    frame = read_clip(tmp_path / "clip" / "saliency.mp4")[1][0].astype(int)
    assert frame.shape == (48, 64, 3)
    assert np.abs(frame[20:28, 63] - frame[20:28, 62]).max() < 4


def test_a_frame_of_another_size_keeps_it_in_its_maps(bundle: Path, tmp_path: Path) -> None:
    """As a call does whose telephone is turned; a rendered video has one size, and says so."""
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number, size in enumerate([(48, 64), (48, 64), (64, 32)]):
            packet = av.Packet(encode(picture(number, *size), "JPEG", quality=95))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    arguments = ("predict", clip, "-o", tmp_path / "out", "-b", bundle)
    assert run(*arguments, "--tasks", "saliency", "--no-overview", "--no-arrays").exit_code == 0
    frames = tmp_path / "out" / "clip" / "frames"
    for name, shape in (("000001", (48, 64)), ("000002", (64, 32))):
        values = np.asarray(Image.open(frames / name / "saliency.png"))
        assert values.shape == shape
        assert values[2:12, 2:8].min() > 240, "the red corner"
        image = json.loads((frames / name / "metadata.json").read_text())["response"]["image"]
        assert (image["height"], image["width"]) == shape
    result = run(*arguments, "--video", "saliency")
    assert "from frame 2 on some have other sizes; stretched to 64 x 48" in result.stderr
    shown = read_clip(tmp_path / "out" / "clip" / "saliency.mp4")[1]
    assert {frame.shape for frame in shown} == {(48, 64, 3)}


def test_pixels_that_are_not_square_are_told_of(bundle: Path, tmp_path: Path) -> None:
    """Where no camera is named that has them; a rendered video has such pixels too."""
    plain = write_clip(tmp_path / "plain.mp4", [0])
    wide = tmp_path / "wide.mp4"
    with av.open(str(plain)) as source, av.open(str(wide), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.sample_aspect_ratio = Fraction(4, 3)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    arguments = ("predict", wide, "-b", bundle, "--tasks", "depth", "--no-arrays", "--no-overview")
    assert "its pixels are 4/3 as wide as high" in run(*arguments, "-o", tmp_path / "a").stderr
    named = run(*arguments, "-o", tmp_path / "b", "--intrinsics", "60,80,31.5,23.5")
    assert (named.exit_code, "as wide as high" in named.stderr) == (0, False)


def test_frames_become_maps_like_images(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", list(range(7)))
    arguments = ("predict", clip, "-o", tmp_path / "out", "-b", bundle, "--tasks", "depth", "--no-arrays")
    assert run(*arguments, "--every", "3").exit_code == 0
    folder = tmp_path / "out" / "clip" / "frames"
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    assert sorted(names) == ["000000", "000003", "000006"]
    assert sorted(path.name for path in (folder / "000003").iterdir()) == [
        "depth.png",
        "metadata.json",
        "overview.png",
    ]
    source = json.loads((folder / "000003" / "metadata.json").read_text())["made_from"]["source"]
    assert (source["frame"], source["seconds"]) == (3, 3 / 25)
    before = command.listing(folder)
    shutil.rmtree(folder / "000003")
    assert run(*arguments, "--every", "3").exit_code == 0  # makes what is missing
    after = command.listing(folder)
    assert after.keys() == before.keys()
    assert after["000003/depth.png"] == before["000003/depth.png"]
    assert run(*arguments, "--every", "6").exit_code == 0
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["000000", "000006"]


def test_killed_in_the_middle_it_goes_on_and_the_video_is_the_same(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [time + time // 50 for time in range(3 * SEGMENT + 7)])
    options = ("-b", bundle, "--video", "depth", "--overlay", "semseg:0.3")
    whole = command.start(clip, "-o", tmp_path / "whole", *options)

    def started(hold_at: int) -> tuple["subprocess.Popen[str]", Path]:
        """It, holding still before it keeps that segment, and the file that lets it go on."""
        go_on = tmp_path / f"{hold_at}.go"
        process = command.start(
            *(clip, "-o", tmp_path / "cut", *options),
            module="tests.mtcp_serve.held",
            environment={"HOLD_AT": str(hold_at), "HOLD_UNTIL": str(go_on)},
        )
        while not go_on.with_suffix(".held").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        return process, go_on

    work = tmp_path / "cut" / ".clip.partial"
    cut, _ = started(1)
    cut.kill()
    assert command.finish(cut)[0] == -signal.SIGKILL
    assert not (tmp_path / "cut" / "clip").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*-000000.*")}
    assert len(kept) == 3

    again, go_on = started(2)  # once more, now by hand
    assert (work / "times-000001.json").exists()
    assert {name: (work / name).stat().st_mtime_ns for name in kept} == kept
    again.send_signal(signal.SIGINT)
    go_on.touch()
    code, said = command.finish(again)
    assert code == 130, said
    assert "interrupted: 0 done, 1 left; the same command goes on" in said

    assert command.finish(command.start(clip, "-o", tmp_path / "cut", *options))[0] == 0
    assert command.finish(whole)[0] == 0
    assert command.listing(tmp_path / "cut") == command.listing(tmp_path / "whole")
    assert len(read_clip(tmp_path / "cut" / "clip" / "depth.mp4")[0]) == 3 * SEGMENT + 7


def test_a_segment_is_the_same_on_a_processor_that_can_do_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded() -> bytes:
        encoder = SegmentEncoder(48, 64, Fraction(1, 25), Fraction(25), Fraction(1))
        for number in range(SEGMENT):
            encoder.add(picture(number), number)
        return encoder.finish()

    here = encoded()
    less = {**writer._OPTIONS, "x264-params": f"{writer._OPTIONS['x264-params']}:asm=0"}
    monkeypatch.setattr(writer, "_OPTIONS", less)
    assert encoded() == here


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_of_a_video_cut_short_the_beginning_is_done(bundle: Path, tmp_path: Path, ending: str) -> None:
    codec = "mpeg4" if ending == "avi" else "libx264"
    whole = write_clip(tmp_path / f"whole.{ending}", list(range(60)), codec=codec, first_moov=ending == "mp4")
    data = whole.read_bytes()
    clip = tmp_path / f"clip.{ending}"
    clip.write_bytes(data[: len(data) * 7 // 10])
    arguments = ("predict", clip, "-o", tmp_path / "out", "-b", bundle, "--video", "saliency")
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"clip.{ending}: " in result.stderr
    assert "cut short" in result.stderr
    assert "frame " in result.stderr
    film = tmp_path / "out" / "clip" / "saliency.mp4"
    assert 10 < len(read_clip(film)[0]) < 60
    made = film.stat().st_mtime_ns
    again = run(*arguments)  # what is wrong is said again, nothing is made again
    assert (again.exit_code, film.stat().st_mtime_ns) == (1, made)
    assert "cut short" in again.stderr


def test_a_video_cut_short_before_its_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", list(range(6)), first_moov=True)
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"mdat") + 4])
    with VideoReader.of_file(clip, LIMITS) as reader:
        assert not list(reader.frames())
    assert reader.fault == "cut short before the first frame"


def test_what_is_no_video_is_refused_and_the_others_are_done(bundle: Path, tmp_path: Path) -> None:
    good = write_clip(tmp_path / "good.mp4", [0, 1])
    broken, playlist, listed, voice = (
        tmp_path / f"{name}.mp4" for name in ("broken", "list", "concat", "voice")
    )
    broken.write_bytes(good.read_bytes()[:500])
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n")
    listed.write_text("ffconcat version 1.0\nfile good.mp4\n")
    with av.open(str(voice), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate, silence.pts = 16000, 0
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    bad = (broken, playlist, listed, voice)
    result = run("predict", *bad, good, "-o", tmp_path / "out", "-b", bundle, "--video", "depth")
    assert result.exit_code == 1
    assert result.stderr.count("not a video that can be read") == 3
    assert "voice.mp4: there is no video stream" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good"]


def test_frames_keep_to_the_limits_of_images(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0])
    with pytest.raises(ImageTooLargeError, match="64 x 48 = 3072 pixels, the limit is 3000"):
        VideoReader.of_file(clip, ImageLimits(10**9, 3000, 5000))
    with pytest.raises(ImageTooLargeError, match="the limit of a side is 60"):
        VideoReader.of_file(clip, ImageLimits(10**9, 10**6, 60))
    with pytest.raises(VideoError, match="not a video"):
        VideoReader.of_file(tmp_path / "nowhere.mp4", LIMITS)


def test_options_that_make_no_sense(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0])
    for options, message in (
        (["--video", "depht"], "no task 'depht'"),
        (["--overlay", "depth:2"], "give TASK or TASK:OPACITY"),
        (["--overlay", "depth:0.0"], "the opacity above 0"),
        (["--overlay", "depth", "--overlay", "depth:0.2"], "names a task twice"),
        (["--every", "0"], "greater than or equal to 1"),
    ):
        result = run("predict", clip, "-o", tmp_path / "out", "-b", bundle, *options)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_is_named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    result = run("predict", clip, "-o", tmp_path / "out", "-b", bundle)
    assert result.exit_code == 3
    assert "pip install 'mtcp-serve[video]'" in result.stderr
