"""Pseudo-labels: what agreement keeps, and images to labels and back through the folder reader."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import (
    DepthTask,
    InputSpec,
    LabelsTask,
    Manifest,
    NormalsTask,
    ProbabilityTask,
    TaskSpec,
)
from mtcp_serve.kinds.base import Map
from training.cli import app
from training.data import SourceConfig, build_source
from training.label_spaces import LABEL_SPACES
from training.pseudo.agreement import agree
from training.pseudo.encode import encode, folder_name
from training.pseudo.labelling import DONE_FILE, SETTINGS_FILE, PseudoLabelError, PseudoLabeller, find_images
from training.pseudo.views import VIEWS, View, look, put_back
from training.tasks import Task, make_task

VOC = LABEL_SPACES["voc"]
SEMSEG = LabelsTask(name="semseg", dataset="voc", labels=VOC.labels, palette=VOC.palette)
METRIC = DepthTask(name="depth", range=(0.1, 10.0))
RELATIVE = DepthTask(name="depth", range=(0.1, 10.0), metric=False, unit="relative")
NORMALS = NormalsTask(name="normals", frame="x right, y up, z towards the camera")
SALIENCY = ProbabilityTask(name="saliency")
GRID = (60, 80)


def agreed(
    task: LabelsTask | DepthTask | ProbabilityTask, *views: float, confidence: float = 0.75
) -> tuple[float, bool]:
    """What one pixel becomes that the views see so; NaN: a view does not cover it."""
    stacked = np.array(views).reshape(-1, 1, 1)
    covered = ~np.isnan(stacked)
    dtype = np.uint8 if isinstance(task, LabelsTask) else np.float32
    values, valid = agree(task, np.nan_to_num(stacked).astype(dtype), covered, confidence)
    return round(float(values[0, 0]), 5), bool(valid[0, 0])


def test_labels_need_a_share_of_the_views() -> None:
    assert agreed(SEMSEG, 7, 7, 7, 2) == (7, True)
    assert agreed(SEMSEG, 7, 7, 2, 2)[1] is False
    assert agreed(SEMSEG, 7, 7, 2, float("nan"))[1] is False
    assert agreed(SEMSEG, 7, 7, float("nan"), float("nan")) == (7, True)
    assert agreed(SEMSEG, 7, 7, 7, 255) == (7, True)
    assert agreed(SEMSEG, 255, 255, 255, 255)[1] is False


def test_depth_must_not_spread() -> None:
    assert agreed(METRIC, 2.0, 2.0, float("nan")) == (2.0, True)
    # mean 2, standard deviation 0.4: a fifth
    assert agreed(METRIC, 1.6, 2.4) == (2.0, True)
    assert agreed(METRIC, 1.6, 2.4, confidence=0.85)[1] is False
    assert (
        agreed(METRIC, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, confidence=0.51)[1] is False
    )  # 0 is not a depth


def test_the_scale_of_relative_depth_is_free() -> None:
    shape = np.linspace(1, 3, 12, dtype=np.float32).reshape(3, 4)
    stacked, covered = np.stack([shape, 5 * shape]), np.ones((2, 3, 4), bool)
    values, valid = agree(RELATIVE, stacked, covered, 0.95)
    assert valid.all()
    assert np.allclose(values, shape, rtol=1e-5)
    assert not agree(METRIC, stacked, covered, 0.95)[1].any()


def test_normals_are_as_sure_as_their_mean_is_long() -> None:
    angles = np.deg2rad([30, -30])
    stacked = np.stack([np.sin(angles), np.zeros(2), np.cos(angles)], -1).astype(np.float32)[:, None, None]
    covered = np.ones((2, 1, 1), bool)
    values, valid = agree(NORMALS, stacked, covered, 0.86)  # the cosine of 30 degrees is .866
    assert np.allclose(values[0, 0], [0, 0, 1])
    assert valid.all()
    assert not agree(NORMALS, stacked, covered, 0.87)[1].any()


def test_probability_must_be_clear_and_agreed() -> None:
    assert agreed(SALIENCY, 0.9, 0.8) == (0.85, True)
    assert agreed(SALIENCY, 0.1, 0.2) == (0.15, True)
    assert agreed(SALIENCY, 0.6, 0.6)[1] is False
    assert agreed(SALIENCY, 1.0, 1.0, 0.4)[1] is False  # mean .8, but a third of the views disagrees


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_comes_back_to_where_it_was_taken(view: View) -> None:
    """A model that says where a pixel is by its colours must say the same through every view."""
    rows, columns = np.mgrid[0 : GRID[0], 0 : GRID[1]].astype(np.float32)
    photo = np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8)
    seen = look(photo, view, GRID, (48, 64))
    assert seen.shape == (48, 64, 3)
    for channel, truth in ((0, rows), (1, columns)):
        said = (seen[..., channel] / 2).astype(np.float32)
        values, covered = put_back(SALIENCY, said, view, GRID)
        assert np.abs(values - truth)[covered].max() <= 1.5
        assert (values[~covered] == 0).all()
        assert covered.mean() == pytest.approx(view.side**2, abs=0.03)


def test_a_mirrored_view_gives_normals_of_the_image() -> None:
    mirrored = View(0, 0, 1, mirrored=True)
    seen = np.zeros((4, 6, 3), np.float32)
    seen[:, :2] = (0.6, 0.0, 0.8)
    seen[:, 2:] = (0.0, 0.0, 1.0)
    values, _ = put_back(NORMALS, seen, mirrored, (4, 6))
    assert np.allclose(values[:, 4:], (-0.6, 0.0, 0.8))
    assert np.allclose(values[:, :4], (0.0, 0.0, 1.0))


def test_metres_of_a_crop_are_those_of_the_image() -> None:
    crop = View(0, 0, 0.5, mirrored=False)
    metres = np.full((4, 6), 1.5, np.float32)
    assert set(np.unique(put_back(METRIC, metres, crop, (8, 12))[0])) == {0, 3}
    assert set(np.unique(put_back(RELATIVE, metres, crop, (8, 12))[0])) == {0, 1.5}


@pytest.mark.parametrize(
    ("task", "values", "missing", "tolerance"),
    [
        (SEMSEG, np.full(GRID, 15, np.uint8), 255, 0.0),
        (METRIC, np.full(GRID, 3.1415, np.float32), 0, 6e-4),
        (NORMALS, np.full((*GRID, 3), (0.6, 0.0, 0.8), np.float32), 0, 6e-3),
        (SALIENCY, np.full(GRID, 0.93, np.float32), -1, 2e-3),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_labels_come_back_through_the_folder_reader(
    tmp_path: Path, task: LabelsTask, values: Map, missing: float, tolerance: float
) -> None:
    valid = np.ones(GRID, bool)
    valid[:20] = False
    _write(tmp_path, {folder_name(task): encode(task, values, valid)})
    net = [make_task(task.name, "voc" if task is SEMSEG else None)]
    source = build_source(
        SourceConfig(kind="folder", root=str(tmp_path), tasks=_spaces(net)), net, GRID, None
    )
    read = source.reader.read(0)[task.name].plain().squeeze(0)
    assert (read[..., :20, :] == missing).all()
    wanted = torch.from_numpy(values).float()
    wanted = wanted.permute(2, 0, 1) if wanted.ndim == 3 else wanted
    assert (read[..., 20:, :].float() - wanted[..., 20:, :]).abs().max() <= tolerance


def test_relative_depth_becomes_disparity(tmp_path: Path) -> None:
    values = np.tile(np.linspace(1, 4, GRID[1], dtype=np.float32), (GRID[0], 1))
    _write(tmp_path, {folder_name(RELATIVE): encode(RELATIVE, values, values > 1.5)})
    net = [make_task("depth")]
    found = build_source(SourceConfig(kind="folder", root=str(tmp_path)), net, GRID, None)[0]
    assert (found["depth"] == 0).all()
    known = torch.from_numpy(values > 1.5)
    assert torch.equal(found["disparity"][0] > 0, known)
    inverse = 1 / torch.from_numpy(values)[known]
    assert torch.allclose(found["disparity"][0][known].float(), inverse / inverse.max(), atol=3e-3)


def _write(root: Path, maps: dict[str, bytes]) -> None:
    for name, png in maps.items():
        (root / name).mkdir()
        (root / name / "a.png").write_bytes(png)
    (root / "images").mkdir()
    (root / "splits").mkdir()
    Image.new("RGB", (GRID[1], GRID[0])).save(root / "images" / "a.png")
    (root / "splits" / "train.txt").write_text("a\n")


def _spaces(tasks: list[Task]) -> dict[str, str]:
    return {task.name: task.space.name for task in tasks if task.space is not None}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(data.astronaut()[::2, ::2]).save(folder / "astro naut.png")
    Image.fromarray(data.chelsea()[::2, ::2]).save(folder / "chelsea.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


class RedIsSalient:
    """An engine whose saliency is the red of the image; quick, where the network does not matter."""

    def __init__(self) -> None:
        small = InputSpec(height=24, width=32)
        self.manifest = Manifest.load(DEFAULT_BUNDLE).model_copy(update={"input": small})

    async def infer(self, images: NDArray[np.uint8], tasks: Sequence[TaskSpec]) -> list[Map]:
        assert [task.name for task in tasks] == ["saliency"]
        return [(images[..., 0] / 255).astype(np.float32)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.pseudo.labelling.load_engine", lambda bundle: RedIsSalient())


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pseudo-label", *map(str, arguments)])
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


def test_the_command_labels_a_folder_and_goes_on_where_it_stopped(photos: Path, tmp_path: Path) -> None:
    mixed, out = tmp_path / "mixed", tmp_path / "out"
    shutil.copytree(photos, mixed)
    (mixed / "broken.jpg").write_bytes(b"\xff\xd8 cut short")
    code, text = run(DEFAULT_BUNDLE, mixed, "-o", out, "--tasks", "semseg,depth,saliency")
    assert code == 1
    assert "broken.jpg: not a readable image" in text
    assert "2 images labelled, 1 failed" in text
    assert (out / "splits" / "train.txt").read_text() == "astro_naut\nchelsea\n"
    assert not list(out.rglob("*.tmp"))

    net = [make_task("semseg", "voc"), make_task("depth"), make_task("saliency"), make_task("normals")]
    config = SourceConfig(kind="folder", root=str(out), tasks={"semseg": "voc"})
    astronaut = build_source(config, net, (240, 320), None)[0]
    person = VOC.labels.index("person")
    assert (astronaut["semseg"][150:, 100:200] == person).float().mean() > 0.5
    assert (astronaut["saliency"][0, 120:200, 100:200] > 0.5).float().mean() > 0.5
    assert (astronaut["normals"] == 0).all()  # was not asked for
    for name, missing in (("semseg", 255), ("saliency", -1), ("depth", 0)):
        share = (astronaut[name] == missing).float().mean()
        assert 0 < share < 0.9, name

    (mixed / "broken.jpg").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert run(DEFAULT_BUNDLE, mixed, "-o", out, "--tasks", "semseg, depth,saliency,")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_repeats_only_the_image_it_was_at(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    async def first_only() -> None:
        labeller = PseudoLabeller(DEFAULT_BUNDLE, out, ["saliency"], 0.9)
        async for _ in labeller.label(find_images(photos)):
            break

    asyncio.run(first_only())
    with (out / DONE_FILE).open("a") as file:
        file.write("chel")  # half a line
    labeller = PseudoLabeller(DEFAULT_BUNDLE, out, ["saliency"], 0.9)
    assert labeller.done() == ["astro_naut"]

    async def rest() -> list[str]:
        return [outcome.image.name async for outcome in labeller.label(find_images(photos))]

    assert asyncio.run(rest()) == ["chelsea.jpg"]
    assert (out / DONE_FILE).read_text() == "astro_naut\nchelsea\n"
    assert (out / "splits" / "train.txt").read_text() == "astro_naut\nchelsea\n"


@pytest.mark.usefixtures("quick")
def test_a_higher_confidence_keeps_fewer_pixels(photos: Path, tmp_path: Path) -> None:
    kept = []
    for confidence in (0.6, 0.9):
        labeller = PseudoLabeller(DEFAULT_BUNDLE, tmp_path / str(confidence), ["saliency"], confidence)

        async def shares(labeller: PseudoLabeller = labeller) -> list[float]:
            found = find_images(photos)
            return [o.kept["saliency"] async for o in labeller.label({"a": found["astro_naut"]})]

        kept += asyncio.run(shares())
    assert 0 < kept[1] < kept[0] <= 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (None, ["--confidence", "0.5"], "confidence must be above 0.5"),
        (None, ["--tasks", "semseg,flow,"], "has no task 'flow'; it has semseg"),
        (None, ["--tasks", ","], "name at least one task"),
        (lambda out: (out / "mine.txt").write_text("x"), [], "exists and holds no pseudo-labels"),
        (
            lambda out: (out / SETTINGS_FILE).write_text('{"model": "other"}'),
            [],
            "another model or other settings",
        ),
        (lambda out: (out / SETTINGS_FILE).write_text("{"), [], "is damaged"),
        (lambda out: (out / SETTINGS_FILE).mkdir(), [], "exists and holds no pseudo-labels"),
    ],
)
def test_nothing_is_done_where_something_is_wrong(
    photos: Path, tmp_path: Path, spoil: Callable[[Path], object] | None, arguments: list[str], words: str
) -> None:
    out = tmp_path / "out"
    if spoil is not None:
        out.mkdir()
        spoil(out)
    before = sorted(tmp_path.rglob("*"))
    code, text = run(DEFAULT_BUNDLE, photos, "-o", out, *arguments)
    assert code == 2
    assert words in text
    assert sorted(tmp_path.rglob("*")) == before


def test_images_and_bundles_that_are_none_are_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no images" in run(DEFAULT_BUNDLE, tmp_path / "empty", "-o", tmp_path / "out")[1]
    assert "there is no bundle" in run(tmp_path / "empty", photos, "-o", tmp_path / "out")[1]
    assert "is not a bundle: give its folder" in run(photos / "notes.txt", photos, "-o", tmp_path / "out")[1]
    code, text = run(DEFAULT_BUNDLE, photos, "-o", photos / "notes.txt" / "out")
    assert code == 2
    assert "Not a directory" in text
    twins = tmp_path / "twins"
    twins.mkdir()
    for name in ("a b.jpg", "a_b.jpg"):
        (twins / name).touch()
    with pytest.raises(PseudoLabelError, match="would have one id, 'a_b'"):
        find_images(twins)


def test_images_are_of_any_format_that_serving_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.webp", "b.TIF", "c.heic", "d.psd", "e.txt"):
        (tmp_path / name).touch()
    assert list(find_images(tmp_path)) == ["a", "b", "c"]
    assert f"2 in {tmp_path} are not images and left out, the first is d.psd" in caplog.text


def test_classes_without_a_label_space_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RedIsSalient()
    semseg, *others = engine.manifest.tasks
    tasks = (semseg.model_copy(update={"dataset": "coco"}), *others)
    engine.manifest = engine.manifest.model_copy(update={"tasks": tasks})
    monkeypatch.setattr("training.pseudo.labelling.load_engine", lambda bundle: engine)
    with pytest.raises(PseudoLabelError, match=r"classes of semseg \(coco\) are not a label space"):
        PseudoLabeller(DEFAULT_BUNDLE, tmp_path / "out", None, 0.9)
    assert not (tmp_path / "out").exists()
    assert len(PseudoLabeller(DEFAULT_BUNDLE, tmp_path / "out", ["depth", "normals"], 0.9).tasks) == 2


def test_normals_of_another_frame_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RedIsSalient()
    tasks = tuple(
        task.model_copy(update={"frame": "x right, y down, z forwards"}) if task.name == "normals" else task
        for task in engine.manifest.tasks
    )
    engine.manifest = engine.manifest.model_copy(update={"tasks": tasks})
    monkeypatch.setattr("training.pseudo.labelling.load_engine", lambda bundle: engine)
    with pytest.raises(PseudoLabelError, match="normals have the frame 'x right, y down, z forwards'"):
        PseudoLabeller(DEFAULT_BUNDLE, tmp_path / "out", None, 0.9)
