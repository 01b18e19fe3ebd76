"""``mtcp-serve predict --confidence``: files beside the maps, in folders, formats and frames of videos."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData
from typer.testing import CliRunner, Result

from mtcp_serve.cli import cli
from tests.mtcp_serve.clips import write_clip
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.support import HEIGHT, WIDTH, noise

DEPTH = expected_confidences(noise(HEIGHT, WIDTH)[None])["depth"][0]


@pytest.fixture(scope="module")
def confident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_confident_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def run(image: Path, bundle: Path, *arguments: str) -> Result:
    given = [str(image), "-b", str(bundle), "-o", str(image.parent / "out"), *arguments]
    return CliRunner().invoke(cli, ["predict", *given])


def test_a_folder_has_it_beside_the_maps(confident: Path, image: Path) -> None:
    folder = image.parent / "out" / "image"
    assert run(image, confident).exit_code == 0
    assert not list(folder.glob("*confidence*"))
    with Image.open(folder / "overview.png") as sheet:
        low = sheet.height
    done = run(image, confident, "--confidence")  # what was made without it is made again
    assert done.exit_code == 0, done.output
    with Image.open(folder / "depth_confidence.png") as picture:
        assert np.abs(np.asarray(picture) / 255 - DEPTH).max() <= 0.5 / 255 + 1e-6
    with np.load(folder / "maps.npz") as arrays:
        assert np.abs(arrays["depth_confidence"] - DEPTH).max() < 1e-6
    metadata = json.loads((folder / "metadata.json").read_text())
    assert {name for name in metadata["files"] if "confidence" in name} == {
        "semseg_confidence.png", "depth_confidence.png",
    }  # fmt: skip
    assert metadata["response"]["without_confidence"] == ["normals", "saliency", "parsing"]
    with Image.open(folder / "overview.png") as sheet:
        assert sheet.height > low  # eight pictures in place of six
    assert "is complete in" in run(image, confident, "--confidence").output


def test_formats_have_it_or_heed_it(confident: Path, image: Path) -> None:
    options = ["--format", "ply", "--format", "zip", "--format-option", "min_confidence=0.5"]
    done = run(image, confident, *options, "--format-option", "edges=true")
    assert done.exit_code == 0, done.output
    folder = image.parent / "out" / "image"
    points = PlyData.read(BytesIO((folder / "points.ply").read_bytes()))["vertex"]
    assert len(points["x"]) == (DEPTH >= 0.5).sum()
    assert b"semseg_confidence.png" not in (folder / "maps.zip").read_bytes()  # nobody asked for it
    assert run(image, confident, "--format", "zip", "--confidence").exit_code == 0
    assert b"semseg_confidence.png" in (folder / "maps.zip").read_bytes()


def test_frames_of_a_video_have_it(confident: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, [0, 1])
    done = run(clip, confident, "--confidence", "--tasks", "depth", "--no-arrays", "--no-overview")
    assert done.exit_code == 0, done.output
    for number in ("000000", "000001"):
        frame = tmp_path / "out" / "clip" / "frames" / number
        assert {path.name for path in frame.iterdir()} == {
            "depth.png", "depth_confidence.png", "metadata.json",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--confidence", "--tasks", "saliency"], "tiny does not say how sure it is of that"),
        (["--confidence", "--format", "cutout"], "--confidence: format cutout has none"),
        (["--confidence", "--video", "depth"], "--confidence is of maps, a rendered video shows none"),
        (["--format", "ply", "--format-option", "min_confidence=2"], "less than or equal to 1"),
        (
            ["--confidence", "--format", "ply", "--format-option", "confidence=true"],
            "--format-option confidence and --confidence are given",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_done(
    confident: Path, image: Path, arguments: list[str], message: str
) -> None:
    done = run(image, confident, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (image.parent / "out").exists()


def test_a_cloud_of_a_model_that_is_not_sure_of_depth(bundle: Path, image: Path) -> None:
    done = run(image, bundle, "--format", "ply", "--format-option", "min_confidence=0.5")
    assert done.exit_code == 2
    assert "there is no confidence for depth" in " ".join(done.output.split())
