"""``mtcp-serve predict --distance``."""

import json
from pathlib import Path

import numpy as np
import pytest

import mtcp_serve
from tests.mtcp_serve.cli.test_refine import run
from tests.mtcp_serve.server.test_refine import IMAGE

WAY = ["--distance", "80,60,12.5", "--distance", "10,10,5"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(IMAGE)
    return path


def test_the_depth_that_is_written_agrees(bundle: Path, image: Path) -> None:
    assert run(image, bundle).exit_code == 0
    done = run(image, bundle, *WAY)  # what was made without them is made again
    assert done.exit_code == 0, done.output
    with mtcp_serve.load(bundle, threads=1) as model:
        wanted = model.predict(image, ["depth"], distances=[(80, 60, 12.5), (10, 10, 5)])
    folder = image.parent / "out" / "a"
    with np.load(folder / "maps.npz") as found:
        np.testing.assert_array_equal(found["depth"], wanted["depth"])
    about = json.loads((folder / "metadata.json").read_text())["response"]["maps"]["depth"]
    assert about["measured"] == wanted.about("depth")["measured"]
    assert "is complete in" in run(image, bundle, *WAY).output
    assert "is complete in" not in run(image, bundle, *WAY[:2]).output


def test_formats_of_depth_take_it(bundle: Path, image: Path) -> None:
    assert run(image, bundle, "--format", "ply", *WAY).exit_code == 0
    done = run(image, bundle, "--format", "cutout", *WAY)
    assert done.exit_code == 2
    assert "none is asked for" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--distance", "1,2"], "write x,y,metres"),
        (["--distance", "1,2", "--distance", "3,4,5,6"], "distances are '1,2'"),
        (["--distance", "1,1,99"], "is 99 m"),
        ([*WAY, "--tasks", "saliency"], "none is asked for"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(
    bundle: Path, image: Path, arguments: list[str], message: str
) -> None:
    done = run(image, bundle, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (image.parent / "out").exists()


def test_two_images_have_no_distances_in_common(bundle: Path, image: Path) -> None:
    image.with_name("b.png").write_bytes(IMAGE)
    done = run(image.parent, bundle, *WAY)
    assert done.exit_code == 2
    assert "--distance is of one image" in done.output
