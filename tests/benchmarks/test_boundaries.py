"""Scoring maps at the size of their labels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

import mtcp_serve
from benchmarks import boundaries
from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, ProbabilityTask
from training.label_spaces import LABEL_SPACES

VOC = LABEL_SPACES["voc"]
TASKS = (
    LabelsTask(name="semseg", dataset="voc", labels=VOC.labels, palette=VOC.palette),
    DepthTask(name="depth", range=(0.1, 10)),
    ProbabilityTask(name="saliency"),
)
SIZE = (60, 80)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of one size and their labels: a disc of class 15, 2 m before a wall 4 m away."""
    for place in ("images", "splits", "semseg", "depth", "saliency"):
        (tmp_path / place).mkdir()
    (tmp_path / "splits" / "val.txt").write_text("a\nb\n")
    for name in "ab":
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / f"{name}.jpg")
    disc = _disc(*SIZE)
    Image.fromarray(np.where(disc, np.uint8(15), np.uint8(0))).save(tmp_path / "semseg" / "a.png")
    Image.fromarray(np.where(disc, np.uint16(2000), np.uint16(4000))).save(tmp_path / "depth" / "a.png")
    Image.fromarray(np.where(disc, np.uint8(255), np.uint8(0))).save(tmp_path / "saliency" / "b.png")
    return tmp_path


class Oracle:
    """A model that draws the disc at a quarter of the size, where it is asked for what is labelled."""

    manifest = SimpleNamespace(tasks=TASKS)

    def __enter__(self) -> "Oracle":
        return self

    def __exit__(self, *error: object) -> None: ...

    def predict(self, image: Image.Image, tasks: list[str], size: str) -> dict[str, Any]:
        assert (image.size, size) == (SIZE[::-1], "model")
        disc = _disc(SIZE[0] // 4, SIZE[1] // 4)
        every = {
            "semseg": np.where(disc, np.uint8(15), np.uint8(0)),
            "depth": np.where(disc, np.float32(2), np.float32(4)),
            "saliency": disc.astype(np.float32),
        }
        return {name: every[name] for name in tasks}


def test_every_task_is_scored_where_it_is_labelled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcp_serve, "load", lambda place, engine: Oracle())
    spaces = {"semseg": "voc", "depth": "", "saliency": ""}
    found = boundaries.score_bundle(Path("oracle"), folder, spaces, "val")
    assert set(found) == {
        ("majority", "semseg"), ("nearest", "semseg"), ("guided", "semseg"), ("bilinear", "depth"),
        ("guided", "depth"), ("bilinear", "saliency"), ("guided", "saliency"),
    }  # fmt: skip
    smooth, stepped = (found[way, "semseg"].metrics() for way in ("majority", "nearest"))
    assert smooth["edgeF"] == stepped["edgeF"] == 1  # half a large pixel is within the tolerance
    assert smooth["pixel_accuracy"] > stepped["pixel_accuracy"]
    depth = found["bilinear", "depth"].metrics()
    assert depth["edgeF"] == 1
    assert 0 < depth["rmse/invpt"] < 0.5
    saliency = found["bilinear", "saliency"].metrics()
    assert 0 < saliency["MAE"] < saliency["MAE/edges"] < 0.3


def test_images_show_maps_where_edges_are_and_maps_may_be_made_coarser(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtcp_serve, "load", lambda place, engine: Oracle())
    colors = np.where(_disc(*SIZE)[..., None], (220, 200, 60), (10, 30, 90)).astype(np.uint8)
    Image.fromarray(colors).save(folder / "images" / "b.jpg", quality=95)
    found = [boundaries.score_bundle(Path("oracle"), folder, {"saliency": ""}, "val", 1, by) for by in (1, 2)]
    (soft, sharp), (softer, still_sharp) = (
        [scores[way, "saliency"].metrics()["MAE/edges"] for way in ("bilinear", "guided")] for scores in found
    )
    assert soft < softer
    assert sharp < soft / 1.5
    assert still_sharp < softer / 1.5


def test_the_command_prints_a_table_and_refuses_what_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mtcp_serve, "load", lambda place, engine: Oracle())
    app = Typer()
    app.command()(boundaries.main)
    printed = CliRunner().invoke(
        app, [str(folder), "semseg=voc", "--bundle", "oracle"], catch_exceptions=False
    )
    assert printed.output.splitlines()[2] == "| oracle | semseg | majority | edgeF | 1.0000 |"
    for wrong, said in (("parsing=fashion", "no parsing"), ("semseg=fashion", "maps no labels of 'fashion'")):
        refused = CliRunner().invoke(app, [str(folder), wrong, "--bundle", "oracle"])
        assert refused.exit_code == 2
        assert said in " ".join(refused.output.replace("│", " ").split())


def _disc(height: int, width: int) -> Any:
    y, x = ((np.mgrid[:height, :width].T + 0.5) / [height, height]).T - 0.5
    return y**2 + (x - 0.17) ** 2 < 0.34**2
