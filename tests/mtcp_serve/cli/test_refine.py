"""``mtcp-serve predict --refine``: files, formats, frames and rendered videos along the image's edges."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import mtcp_serve
from mtcp_serve.cli import cli
from tests.mtcp_serve.clips import read_clip, write_clip
from tests.mtcp_serve.server.test_refine import IMAGE, REFINED, SIZE


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(IMAGE)
    return path


def run(image: Path, bundle: Path, *arguments: str) -> Result:
    given = [str(image), "-b", str(bundle), "-o", str(image.parent / "out"), *arguments]
    return CliRunner().invoke(cli, ["predict", *given])


def resampled(folder: Path) -> dict[str, str]:
    maps = json.loads((folder / "metadata.json").read_text())["response"]["maps"]
    return {name: about["resampled"] for name, about in maps.items()}


def test_a_folder_has_refined_maps(bundle: Path, large: Path) -> None:
    folder = large.parent / "out" / "large"
    assert run(large, bundle).exit_code == 0
    assert resampled(folder)["saliency"] == "bilinear"
    done = run(large, bundle, "--refine")  # what was made without it is made again
    assert done.exit_code == 0, done.output
    assert resampled(folder) == {**REFINED, "normals": "bilinear"}
    with mtcp_serve.load(bundle, threads=1) as model:
        wanted = model.predict(IMAGE, refine=True)
    with np.load(folder / "maps.npz") as found:
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
    assert "is complete in" in run(large, bundle, "--refine").output


def test_formats_take_it_as_their_option_too(bundle: Path, large: Path) -> None:
    folder = large.parent / "out" / "large"
    for way in (["--refine"], ["--format-option", "refine=true"]):
        done = run(large, bundle, "--format", "npz", "--format", "cutout", *way)
        assert done.exit_code == 0, done.output
        assert resampled(folder)["depth"] == "guided"
    refined = (folder / "cutout.png").read_bytes()
    for way, same in ([], True), (["--format-option", "refine=false"], False):
        assert run(large, bundle, "--format", "cutout", *way).exit_code == 0
        assert ((folder / "cutout.png").read_bytes() == refined) == same
        assert resampled(folder) == {"saliency": "guided" if same else "bilinear"}
    for names in (
        ["npz", "cutout"],
        ["cutout", "npz"],
    ):  # the map that is in a file is the one that is told of
        formats = [word for name in names for word in ("--format", name)]
        assert run(large, bundle, *formats, "--tasks", "saliency").exit_code == 0
        assert resampled(folder) == {"saliency": "bilinear"}


def test_frames_and_rendered_videos_are_refined(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0], SIZE)
    assert run(clip, bundle, "--refine", "--tasks", "depth").exit_code == 0
    assert resampled(tmp_path / "out" / "clip" / "frames" / "000000") == {"depth": "guided"}
    films = []
    for way in ([], ["--refine"]):
        assert run(clip, bundle, "--video", "saliency", *way).exit_code == 0
        films.append(read_clip(tmp_path / "out" / "clip" / "saliency.mp4")[1][0].astype(int))
    apart = np.abs(films[1] - films[0]).max(axis=-1)
    edge = np.zeros(SIZE, bool)  # of the red corner of the frame
    edge[:50, :65], edge[:30, :43] = True, False
    assert apart[edge].max() > 20
    assert np.percentile(apart[~edge], 90) < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refine", "--size", "model"], "but size is model"),
        (["--refine", "--format", "ply"], "--refine: format ply has none"),
        (["--refine", "--format", "npz", "--format-option", "refine=true"], "give one of them"),
    ],
)
def test_what_would_be_without_effect_is_refused(
    bundle: Path, large: Path, arguments: list[str], message: str
) -> None:
    done = run(large, bundle, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (large.parent / "out").exists()


def test_an_image_says_what_it_was_made_of(bundle: Path, large: Path) -> None:
    assert run(large, bundle, "--refine", "--no-overview").exit_code == 0
    with Image.open(large.parent / "out" / "large" / "depth.png") as picture:
        assert json.loads(picture.text["mtcp"])["resampled"] == "guided"  # type: ignore[attr-defined]
