"""Depth in named colours, and the legend that says which depth they stand for."""

import base64
import json
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from mtcp_serve.cli import cli
from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.kinds.colormaps import DEFAULT, colormap, colormap_names
from mtcp_serve.model import load
from mtcp_serve.outputs.picture import Style, draw
from tests.mtcp_serve.clips import read_clip, write_clip
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH

SEMSEG, DEPTH, *_ = TASKS
RAMP = np.linspace(1, 5, 400, dtype=np.float32)[None].repeat(8, 0)


@pytest.mark.parametrize("name", [name for name in colormap_names() if name != DEFAULT])
def test_the_tables_are_those_of_matplotlib(name: str) -> None:
    theirs = {each.lower(): each for each in mpl.colormaps}[name]
    expected = mpl.colormaps[theirs](np.arange(256), bytes=True)[:, :3]
    assert np.array_equal(colormap(name), expected)
    assert np.array_equal(colormap(f"{name}_r"), expected[::-1])


def test_near_has_the_upper_end_of_the_table() -> None:
    pixels = np.asarray(draw(DEPTH, RAMP, Style("viridis"), (1.0, 5.0)))[0]
    assert pixels[0].tolist() == colormap("viridis")[255].tolist()
    assert pixels[-1].tolist() == colormap("viridis")[0].tolist()


def test_a_colour_of_the_legend_stands_for_its_depth() -> None:
    """The bar runs from near to far, so the colour above each tick is that of the depth written there."""
    plain = np.asarray(draw(DEPTH, RAMP, Style("turbo"), (1.0, 5.0)))
    picture = np.asarray(draw(DEPTH, RAMP, Style("turbo", legend=True), (1.0, 5.0)))
    assert np.array_equal(picture[:8], plain)
    strip = picture[8:]
    assert len(strip) == 33
    ticks = np.flatnonzero((strip[16] == 0).all(axis=1))  # the row below the bar has nothing but them
    bar = strip[10, 11:389]
    for depth, at in zip(range(1, 6), ticks, strict=True):
        shown = np.rint((5 - depth) / 4 * 255).astype(int)
        table = colormap("turbo")[max(shown - 1, 0) : shown + 2].astype(int)
        assert (np.abs(table - bar[at - 11]).sum(axis=1) <= 6).any(), depth
    assert np.array_equal(bar[0], plain[0, 0])
    assert np.array_equal(bar[-1], plain[0, -1])


@pytest.mark.parametrize("width", [1, 7, 33, 640])
@pytest.mark.parametrize("values", [(2.0, 2.0), (1.0, 1.001), (0.2, 9.9), (3000.0, 70000.0)])
def test_every_width_and_range_has_a_legend(width: int, values: tuple[float, float]) -> None:
    depth = np.linspace(*values, 2 * width, dtype=np.float32).reshape(2, width)
    picture = draw(DEPTH, depth, Style(legend=True))
    assert picture.width == width
    assert picture.height > 30


def test_a_map_without_a_valid_depth_has_no_legend() -> None:
    assert draw(DEPTH, np.zeros((4, 5), np.float32), Style(legend=True)).size == (5, 4)


def post(client: TestClient, query: str) -> tuple[int, bytes]:
    answer = client.post(f"/predict?{query}", content=GOOD, headers={"Content-Type": "image/png"})
    return answer.status_code, answer.content


def test_a_request_names_them(client: TestClient) -> None:
    plain, turbo, legend = (
        np.asarray(Image.open(BytesIO(post(client, f"format=png&tasks=depth&size=model&{more}")[1])))
        for more in ("visualize=true", "colormap=turbo", "colormap=turbo&legend=true")
    )
    assert plain.shape == turbo.shape == (HEIGHT, WIDTH, 3)
    assert not np.array_equal(plain, turbo)
    assert np.array_equal(legend[:HEIGHT], turbo)
    assert len(legend) > HEIGHT
    with np.load(BytesIO(post(client, "format=npz&size=model&colormap=turbo")[1])) as arrays:
        assert np.array_equal(arrays["depth.visualization"], turbo)
        assert arrays["semseg.visualization"].shape == (HEIGHT, WIDTH, 3)
    maps = json.loads(post(client, "size=model&colormap=turbo")[1])["maps"]
    sent = Image.open(BytesIO(base64.b64decode(maps["depth"]["visualization"])))
    assert np.array_equal(np.asarray(sent), turbo)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "colormap=jet",
            "is none of heat, turbo, viridis, magma, inferno, plasma, cividis, spectral, gray",
        ),
        ("colormap=turbo_r_r", "is none of heat"),
        ("colormap=turbo&tasks=semseg", "colormap is of maps of kind depth, but the tasks are semseg"),
        ("legend=true&tasks=semseg", "legend is of maps of kind depth"),
        ("colormap=turbo&visualize=false", "visualize is false, but a colormap or legend is given"),
        ("colormap=turbo&format=ply", "format ply has no colormap"),
        ("legend=true&format=glb", "format glb has no legend"),
    ],
)
def test_what_nothing_would_heed_is_refused(client: TestClient, query: str, message: str) -> None:
    status, body = post(client, query)
    assert status == 422
    assert message in json.loads(body)["error"]["message"]


def test_a_program_names_them(bundle: Path) -> None:
    with load(bundle, threads=1) as model:
        maps = model.predict(GOOD, size="model")
    expected = draw(DEPTH, maps["depth"], Style("magma_r", legend=True))
    assert np.array_equal(np.asarray(maps.image("depth", "magma_r", legend=True)), np.asarray(expected))
    assert maps.overlay("depth", colormap="magma_r").size == (WIDTH, HEIGHT)
    with pytest.raises(InvalidParameterError, match="kind depth"):
        maps.image("semseg", "turbo")
    with pytest.raises(ValueError, match="none of heat, turbo"):
        maps.image("depth", "jet")


def test_the_command_line_names_them(bundle: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(GOOD)

    def run(*arguments: str) -> str:
        command = ["predict", str(image), "-b", str(bundle), "-o", str(tmp_path / "out"), *arguments]
        done = CliRunner().invoke(cli, command)
        return f"{done.exit_code} {done.output}"

    folder = tmp_path / "out" / "image"
    assert run().startswith("0")
    plain = (folder / "overview.png").read_bytes()
    assert run("--colormap", "turbo", "--legend").startswith("0")  # made anew: it is made from something else
    assert (folder / "overview.png").read_bytes() != plain
    assert run("--colormap", "viridis", "--format", "png", "--tasks", "depth").startswith("0")
    depth = np.asarray(Image.open(folder / "depth.png"))
    assert depth.shape[2] == 3
    assert "none of heat, turbo" in run("--colormap", "jet")
    assert run("--colormap", "turbo", "--no-overview").startswith("2")
    assert run("--legend", "--tasks", "semseg").startswith("2")
    assert run("--legend", "--format", "ply").startswith("2")


def test_a_film_has_them_too(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [0, 1])
    layers = ["--video", "depth", "--overlay", "depth:0.5", "--colormap", "turbo", "--legend"]
    done = CliRunner().invoke(cli, ["predict", str(clip), "-b", str(bundle), "-o", str(tmp_path), *layers])
    assert done.exit_code == 0, done.output
    for name in ("depth", "depth-overlay"):
        _, frames = read_clip(tmp_path / "clip" / f"{name}.mp4")
        assert len(frames) == 2
        assert frames[0].shape == (48 + 34, 64, 3)  # 33 of legend, made even
        assert (frames[0][-16:, :20] > 240).all()  # its ground
