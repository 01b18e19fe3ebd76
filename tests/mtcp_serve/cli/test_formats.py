"""A response format of the server is a format of ``mtcp-serve predict`` and of the client too."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from mtcp_serve.cli import cli
from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.kinds import MapOut
from mtcp_serve.outputs.formats import FORMATS
from mtcp_serve.outputs.formats.base import Writer
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.clips import write_clip
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH, encode, noise


class ListWriter(Writer):
    """A format of somebody else's: names and shapes, line by line."""

    name = "list"
    media_type = "text/x-list"
    file_name = "maps.txt"
    description = "a line a map"

    def _write(self, prediction: DenseMaps, folder: str) -> dict[str, MapOut]:
        self._lines = [f"{dense.task.name} {dense.values().shape}" for dense in prediction.maps]
        return {}

    def finish(self, document: BaseModel) -> bytes:
        return "\n".join(self._lines).encode()


def run(image: Path, bundle: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["predict", str(image), "-b", str(bundle), *arguments])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "png"])
def test_every_format_writes_its_file_and_metadata(
    name: str, bundle: Path, image: Path, tmp_path: Path
) -> None:
    done = run(image, bundle, "-o", str(tmp_path / "out"), "--format", name)
    assert done.exit_code == 0, done.output
    files = {path.name: path for path in (tmp_path / "out" / "image").iterdir()}
    assert files.keys() == {FORMATS[name].file_name, "metadata.json"}
    assert files[FORMATS[name].file_name].stat().st_size > 0
    assert json.loads(files["metadata.json"].read_text())["files"] == [FORMATS[name].file_name]


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        (["cutout"], ["saliency"]),
        (["glb", "cutout"], ["depth", "saliency"]),
        (["json"], [task.name for task in TASKS]),
        (["ply", "npz"], [task.name for task in TASKS]),
    ],
    ids=str,
)
def test_metadata_is_of_the_maps_that_the_formats_are_made_of(
    names: list[str], tasks: list[str], bundle: Path, image: Path, tmp_path: Path
) -> None:
    """As the maps themselves have it when they are written."""
    plain = run(image, bundle, "-o", str(tmp_path / "plain"))
    formats = [argument for name in names for argument in ("--format", name)]
    done = run(image, bundle, "-o", str(tmp_path / "out"), *formats)
    assert (plain.exit_code, done.exit_code) == (0, 0), done.output
    want, found = (
        json.loads((tmp_path / folder / "image" / "metadata.json").read_text())["response"]["maps"]
        for folder in ("plain", "out")
    )
    assert found == {name: about for name, about in want.items() if name in tasks}


def test_files_are_those_of_the_server(bundle: Path, image: Path, tmp_path: Path, client: TestClient) -> None:
    done = run(image, bundle, "-o", str(tmp_path), "--format", "png", "--format", "npz", "--tasks", "depth")
    assert done.exit_code == 0, done.output
    headers = {"Content-Type": "image/png"}
    sent = client.post("/predict?format=png&tasks=depth", content=GOOD, headers=headers).content
    assert (tmp_path / "image" / "depth.png").read_bytes() == sent
    arrays = client.post("/predict?format=npz&tasks=depth", content=GOOD, headers=headers).content
    with np.load(tmp_path / "image" / "maps.npz") as written, np.load(BytesIO(arrays)) as served:
        assert np.array_equal(written["depth"], served["depth"])


def test_options_reach_the_format_and_make_it_anew(bundle: Path, image: Path, tmp_path: Path) -> None:
    sizes = []
    for step in ("1", "4"):
        options = ["--format", "ply", "--format-option", f"step={step}", "--format-option", "edges=true"]
        done = run(image, bundle, "-o", str(tmp_path), *options)
        assert done.exit_code == 0, done.output
        sizes.append((tmp_path / "image" / "points.ply").read_bytes().count(b"element vertex"))
        sizes.append((tmp_path / "image" / "points.ply").stat().st_size)
    assert sizes[1] > 8 * sizes[3]
    again = run(image, bundle, "-o", str(tmp_path), *options)
    assert "is complete" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "docx"], "--format docx is none of json, npz"),
        (["--format", "png"], "holds one map, but 5 are asked for"),
        (["--format", "ply", "--tasks", "semseg"], "needs a depth map"),
        (
            ["--format", "ply", "--format-option", "step=0"],
            "step: Input should be greater than or equal to 1",
        ),
        (
            ["--format", "ply", "--format-option", "background=#ffffff"],
            "the formats have confidence, edges, min_confidence, step",
        ),
        (["--format-option", "step=1"], "the formats have none"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    arguments: list[str], message: str, bundle: Path, image: Path, tmp_path: Path
) -> None:
    done = run(image, bundle, "-o", str(tmp_path / "out"), *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_a_format_of_ones_own_serves_everywhere(
    bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "list", ListWriter)
    done = run(image, bundle, "-o", str(tmp_path), "--format", "list")
    assert done.exit_code == 0, done.output
    written = (tmp_path / "image" / "maps.txt").read_bytes()
    assert written.splitlines()[0] == f"semseg ({HEIGHT}, {WIDTH})".encode()
    with TestClient(create_app(Settings(bundle=(bundle,), intra_op_threads=1))) as client:
        sent = client.post("/predict?format=list", content=GOOD, headers={"Content-Type": "image/png"})
        assert (sent.content, sent.headers["content-type"]) == (written, "text/x-list")
        accept = {"Accept": "text/x-list", "Content-Type": "image/png"}
        assert client.post("/predict", content=encode(noise(9, 9)), headers=accept).status_code == 200


def test_frames_of_a_video_have_it_too(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0, 1])
    done = run(clip, bundle, "-o", str(tmp_path / "out"), "--format", "cutout")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out" / "clip" / "frames" / "000001").iterdir()) == [
        "cutout.png",
        "metadata.json",
    ]
