"""Smoothing over time: less flicker where nothing moves, no smear where something does, a cut starts anew."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtcp_serve.bundle.manifest import FileEntry, InputSpec, Manifest
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec
from mtcp_serve.offline.video.smoothing import Smoother
from tests.mtcp_serve.clips import read_clip, write_clip
from tests.mtcp_serve.command import finish, listing, start

SIZE = (60, 80)
DEPTH = DepthTask(name="depth", range=(0.1, 10.0))
NORMALS = NormalsTask(name="normals", frame="x right, y up, z towards the camera")
SALIENCY = ProbabilityTask(name="saliency")
LABELS = LabelsTask(name="semseg", dataset="d", labels=("a", "b"), palette=("#000000", "#ffffff"))
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every order of the tests."""
    monkeypatch.setattr(sys.modules[__name__], "RANDOM", np.random.default_rng(0))


def predicted(maps: dict[TaskSpec, Any]) -> DenseMaps:
    manifest = Manifest(
        name="tiny",
        version="1",
        input=InputSpec(height=SIZE[0], width=SIZE[1]),
        tasks=tuple(maps),
        files={"model.onnx": FileEntry(sha256="0" * 64)},
    )
    info = ImageInfo(SIZE[1], SIZE[0], "PNG", "RGB", exif_rotated=False, animated=False)
    dense = tuple(DenseMap("tiny", task, values, *SIZE) for task, values in maps.items())
    return DenseMaps((manifest,), info, dense, Timings())


def smoothed(smoother: Smoother, frame: NDArray[np.uint8], maps: dict[TaskSpec, Any]) -> list[Any]:
    return [dense.raw for dense in smoother(predicted(maps), {SIZE: frame}).maps]


def texture(width: int = 400) -> NDArray[np.uint8]:
    """A strip of blocks of random grey, as high as a frame."""
    blocks = RANDOM.integers(0, 256, (SIZE[0] // 5, width // 5), dtype=np.uint8)
    return np.repeat(np.repeat(np.repeat(blocks, 5, 0), 5, 1)[..., None], 3, axis=2)


def bright_wall() -> NDArray[np.uint8]:
    """A frame of blocks, all of them brighter than red: what is red before it can be seen to move."""
    wall: NDArray[np.uint8] = texture()[:, : SIZE[1]] // 2 + 128
    return wall


def noisy(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a camera makes of it: noise of 4 grey levels."""
    grain: NDArray[np.uint8] = (frame + RANDOM.normal(0, 4, frame.shape)).clip(0, 255).astype(np.uint8)
    return grain


def test_the_flicker_of_a_still_scene_is_what_an_exponential_mean_leaves() -> None:
    """Of white noise a mean with share a of the new value leaves a / sqrt(2 - a) of its changes."""
    frame, smoother = texture()[:, : SIZE[1]], Smoother(0.8)
    before: list[Any] = []
    after: list[Any] = []
    for _ in range(40):
        depth = (3 + RANDOM.normal(0, 0.1, SIZE)).astype(np.float32)
        before.append(depth)
        after.append(smoothed(smoother, noisy(frame), {DEPTH: depth})[0])

    def flicker(maps: list[Any]) -> float:
        return float(np.std(np.diff(maps[20:], axis=0)))

    assert flicker(after) / flicker(before) == pytest.approx(0.2 / np.sqrt(1.8), rel=0.05)


def test_a_pan_is_not_smeared() -> None:
    """Depth goes with the texture: of 2.5 pixels a frame, a mean that knew no motion would lag by metres."""
    strip = texture()
    far = np.repeat(RANDOM.uniform(1, 9, 80), 5).astype(np.float32)
    smoother, lag, blind = Smoother(0.8), [], None
    for at in range(0, 200, 5):
        truth = np.broadcast_to(far[at : at + SIZE[1]], SIZE).astype(np.float32)
        found = smoothed(smoother, noisy(strip[:, at : at + SIZE[1]]), {DEPTH: truth})[0]
        blind = truth if blind is None else blind + np.float32(0.2) * (truth - blind)
        lag.append((np.abs(found - truth).mean(), np.abs(blind - truth).mean()))
    with_motion, without = np.mean(lag[10:], axis=0)
    assert without > 1
    assert with_motion < 0.05 * without


def test_what_moves_before_a_still_wall_is_new_and_the_wall_is_smooth() -> None:
    wall = bright_wall()
    smoother = Smoother(0.8)
    for at in range(0, 40, 2):
        frame, depth = wall.copy(), np.full(SIZE, 8, np.float32)
        frame[20:40, at : at + 20] = (255, 0, 0)
        depth[20:40, at : at + 20] = 2
        found = smoothed(smoother, noisy(frame), {DEPTH: depth + RANDOM.normal(0, 0.05, SIZE)})[0]
        assert abs(found[25:35, at + 4 : at + 16].mean() - 2) < 0.1
        if at >= 12:
            assert abs(found[25:35, : at - 6].mean() - 8) < 0.2  # nothing of it is left behind
    assert found[:15].std() < 0.02


def test_classes_of_a_still_scene_hold_against_frames_that_err() -> None:
    """A fifth of the pixels err in each frame, and where two classes alternate one of them stays."""
    frame, smoother = texture()[:, : SIZE[1]], Smoother(0.8)
    truth = np.zeros(SIZE, np.uint8)
    truth[:, 40:] = 1
    shown = []
    for number in range(60):
        labels = np.where(RANDOM.random(SIZE) < 0.2, 1 - truth, truth)
        labels[:10] = number % 2
        shown.append(smoothed(smoother, noisy(frame), {LABELS: labels.astype(np.uint8)})[0])
    settled = np.array(shown[10:])
    assert (settled[:, 10:] != truth[10:]).mean() < 0.02
    assert (settled[1:] != settled[:-1]).mean() < 0.005
    assert (settled[1:, :10] == settled[:-1, :10]).all()


def test_classes_change_in_a_few_frames_and_at_once_where_something_moves() -> None:
    wall, smoother = bright_wall(), Smoother(0.8)
    for _ in range(10):
        smoothed(smoother, noisy(wall), {LABELS: np.zeros(SIZE, np.uint8)})
    late = [smoothed(smoother, noisy(wall), {LABELS: np.ones(SIZE, np.uint8)})[0].mean() for _ in range(7)]
    assert late[3] < 0.01
    assert late[6] > 0.99
    for at in range(0, 40, 2):
        frame, labels = wall.copy(), np.ones(SIZE, np.uint8)
        frame[20:40, at : at + 20] = (255, 0, 0)
        labels[20:40, at : at + 20] = 0
        (found,) = smoothed(smoother, noisy(frame), {LABELS: labels})
        assert (found[22:38, at + 2 : at + 18] == 0).mean() > 0.98
        assert (found[22:38, : max(at - 6, 0)] == 1).all()  # nothing of it is left behind


def test_a_cut_starts_anew() -> None:
    smoother = Smoother(0.9)
    for _ in range(5):
        smoothed(smoother, np.zeros((*SIZE, 3), np.uint8), {DEPTH: np.full(SIZE, 1, np.float32)})
        smoothed(smoother, np.zeros((*SIZE, 3), np.uint8), {LABELS: np.zeros(SIZE, np.uint8)})
    second = {DEPTH: np.full(SIZE, 9, np.float32), LABELS: np.ones(SIZE, np.uint8)}
    depth, labels = smoothed(smoother, np.full((*SIZE, 3), 200, np.uint8), second)
    assert (depth == 9).all()
    assert (labels == 1).all()


def test_most_of_a_picture_that_changes_is_a_cut_and_less_is_motion() -> None:
    """At a cut the pixels that look as before are of another scene too."""
    first, second = np.full(SIZE, 2, np.float32), np.full(SIZE, 4, np.float32)
    for changed, still in ((0.3, 3), (0.6, 4), (0.85, 4)):
        smoother, frame = Smoother(0.5), np.zeros((*SIZE, 3), np.uint8)
        smoothed(smoother, frame, {DEPTH: first})
        frame[:, : round(changed * SIZE[1])] = 200
        (depth,) = smoothed(smoother, frame, {DEPTH: second})
        assert (depth[:, :20] == 4).all()
        assert (depth[:, -4:] == still).all(), changed


def test_what_is_beside_motion_is_new_and_what_is_farther_off_is_not() -> None:
    """A network looks around a pixel: its map changes beside what moves, where the picture does not."""
    smoother, frame = Smoother(0.5), np.zeros((*SIZE, 3), np.uint8)
    smoothed(smoother, frame, {DEPTH: np.full(SIZE, 2, np.float32)})
    frame[20:40, 30:50] = 200
    (depth,) = smoothed(smoother, frame, {DEPTH: np.full(SIZE, 4, np.float32)})
    assert (depth[16:44, 26:54] == 4).all()
    beyond = np.ones(SIZE, bool)
    beyond[10:50, 20:60] = False
    assert (depth[beyond] == 3).all()


@pytest.mark.parametrize(("degrees", "shown"), [(90, 45), (115, 57.5), (125, 125), (170, 170)])
def test_a_normal_that_turns_far_is_the_new_one(degrees: float, shown: float) -> None:
    """Beyond 120 degrees the mean of two normals is of neither surface."""

    def facing(angle: float) -> NDArray[np.float32]:
        direction = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle)), 0], np.float32)
        return np.broadcast_to(direction, (*SIZE, 3))

    smoother, frame = Smoother(0.5), np.zeros((*SIZE, 3), np.uint8)
    smoothed(smoother, frame, {NORMALS: facing(0)})
    (normals,) = smoothed(smoother, frame, {NORMALS: facing(degrees)})
    assert normals == pytest.approx(facing(shown), abs=1e-5)


@pytest.mark.parametrize("strength", [0.5, 0.8])
def test_one_frame_that_errs_does_not_bring_a_class_back(strength: float) -> None:
    smoother, frame = Smoother(strength), np.zeros((*SIZE, 3), np.uint8)
    old, new = np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)
    (shown,) = smoothed(smoother, frame, {LABELS: old})
    frames = 0
    while (shown == 0).any():
        (shown,) = smoothed(smoother, frame, {LABELS: new})
        frames += 1
        assert frames < 20
    (shown,) = smoothed(smoother, frame, {LABELS: old})
    assert (shown == 1).all()


def test_each_kind_keeps_to_its_values() -> None:
    smoother, frame = Smoother(0.5), np.zeros((*SIZE, 3), np.uint8)
    right = np.broadcast_to(np.array([1, 0, 0], np.float32), (*SIZE, 3))
    up = np.broadcast_to(np.array([0, 1, 0], np.float32), (*SIZE, 3))
    hole = np.full(SIZE, 4, np.float32)
    hole[0, 0] = 0
    first = {NORMALS: right, DEPTH: np.full(SIZE, 2, np.float32), SALIENCY: np.zeros(SIZE, np.float32)}
    second = {NORMALS: up, DEPTH: hole, SALIENCY: np.ones(SIZE, np.float32)}
    smoothed(smoother, frame, {**first, LABELS: np.zeros(SIZE, np.uint8)})
    normals, depth, saliency, labels = smoothed(smoother, frame, {**second, LABELS: np.ones(SIZE, np.uint8)})
    assert normals[0, 0] == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), 0])
    assert (depth[0, 0], depth[5, 5]) == (0, 3)  # invalid stays invalid
    assert (saliency == 0.5).all()
    assert (labels == 0).all()  # one frame says another class
    (labels,) = smoothed(smoother, frame, {LABELS: np.ones(SIZE, np.uint8)})
    assert labels.dtype == np.uint8
    assert (labels == 1).all()  # two do
    (again,) = smoothed(smoother, frame, {DEPTH: np.full(SIZE, 4, np.float32)})
    assert (again[0, 0], again[5, 5]) == (4, 3.5)


@pytest.mark.parametrize("strength", [-0.1, 1.0, float("nan")])
def test_a_strength_that_cannot_be(strength: float) -> None:
    with pytest.raises(ValueError, match="from 0 to below 1"):
        Smoother(strength)


def test_a_smoothed_video_lags_behind_a_slow_fade_and_survives_an_interruption(
    bundle: Path, tmp_path: Path
) -> None:
    """The depth of the tiny bundle is the grey level, which grows by 2 a frame: too little for motion."""
    clip = write_clip(tmp_path / "clip.mp4", list(range(70)))
    options = ("--bundle", bundle, "--video", "depth")
    smooth = (*options, "--smooth", "0.8")
    go_on = tmp_path / "1.go"
    cut = start(
        *(clip, "-o", tmp_path / "cut", *smooth),
        module="tests.mtcp_serve.held",
        environment={"HOLD_AT": "1", "HOLD_UNTIL": str(go_on)},
    )
    while not go_on.with_suffix(".held").exists():
        assert cut.poll() is None, cut.communicate()
        time.sleep(0.005)
    cut.kill()
    assert finish(cut)[0] == -signal.SIGKILL
    for folder, requested in (("cut", smooth), ("whole", smooth), ("plain", options)):
        code, said = finish(start(clip, "-o", tmp_path / folder, *requested))
        assert code == 0, said
    assert listing(tmp_path / "cut") == listing(tmp_path / "whole")
    films = [read_clip(tmp_path / folder / "clip" / "depth.mp4")[1] for folder in ("whole", "plain")]
    late, prompt = (np.array([frame[24, 32].astype(int) for frame in film]) for film in films)
    assert len(late) == len(prompt) == 70
    behind = np.abs(late[20:60] - prompt[16:56]).mean()  # a mean of 0.2 of the new value is 4 frames late
    assert behind < np.abs(late[20:60] - prompt[20:60]).mean()
