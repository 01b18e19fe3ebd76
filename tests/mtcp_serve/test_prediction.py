"""A prediction says what it holds, shows it, and is written as the gateway would send it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtcp_serve import Prediction
from mtcp_serve.bundle.manifest import FileEntry, InputSpec, Manifest
from mtcp_serve.inference.images import DecodedImage, ImageInfo
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import KINDS
from tests.mtcp_serve.outputs.test_png_file import by_the_letter
from tests.mtcp_serve.support import TASKS

SEMSEG, DEPTH, NORMALS, SALIENCY, _ = TASKS
RAW: dict[str, Any] = {
    "semseg": np.array([[0, 1, 2], [2, 1, 255]], np.uint8),
    "depth": np.array([[1, 2, 3], [0, 5, 6]], np.float32),
    "normals": np.broadcast_to(np.array([0, 0, 1], np.float32), (2, 3, 3)).copy(),
    "saliency": np.array([[0, 0.5, 1], [1, 0.5, 0]], np.float32),
}
MANIFEST = Manifest(
    name="tiny",
    version="7",
    input=InputSpec(height=2, width=3),
    tasks=TASKS[:4],
    files={"model.onnx": FileEntry(sha256="0" * 64)},
)
PHOTO = DecodedImage(Image.new("RGB", (3, 2), "red"), ImageInfo(3, 2, "PNG", "RGB", False, False))


@pytest.fixture
def maps() -> Prediction:
    dense = tuple(DenseMap("tiny", task, RAW[task.name], 2, 3) for task in TASKS[:4])
    return Prediction.of(DenseMaps((MANIFEST,), PHOTO.info, dense, Timings()), PHOTO)


def test_it_is_a_mapping_of_arrays(maps: Prediction) -> None:
    assert list(maps) == ["semseg", "depth", "normals", "saliency"]
    assert len(maps) == 4
    for name, values in maps.items():
        assert np.array_equal(values, RAW[name])
    assert "parsing" not in maps
    with pytest.raises(KeyError, match="'parsing'; there is semseg, depth, normals, saliency"):
        maps["parsing"]


def test_it_says_what_its_values_mean(maps: Prediction) -> None:
    assert maps.about("depth")["unit"] == "m"
    assert (maps.about("depth")["min"], maps.about("depth")["max"]) == (1.0, 6.0)
    assert maps.about("semseg")["present"] == [0, 1, 2]
    assert repr(maps) == "<Prediction of tiny 7 for 3 x 2: semseg, depth, normals, saliency>"
    with pytest.raises(KeyError, match="'parsing'"):
        maps.about("parsing")


def test_visualizations_are_those_of_the_task(maps: Prediction) -> None:
    for task in TASKS[:4]:
        assert np.array_equal(np.asarray(maps.image(task.name)), np.asarray(task.color(RAW[task.name])))


def test_a_task_comes_back_from_what_is_said_of_its_map(maps: Prediction) -> None:
    """Of depth the range is that of the PNG, which any value that a file can hold lies in."""
    for task in (SEMSEG, NORMALS, SALIENCY):
        again = type(task).of_metadata(task.name, maps.about(task.name))
        assert again == task.model_copy(update={"output": task.name})
    depth = KINDS["depth"].of_metadata("depth", maps.about("depth"))
    assert depth.caption(RAW["depth"]) == DEPTH.caption(RAW["depth"])


def test_an_overlay_lies_between_image_and_map(maps: Prediction) -> None:
    red, over = np.asarray(PHOTO.image, np.float64), np.asarray(maps.image("saliency"), np.float64)
    half = np.asarray(maps.overlay("saliency"), np.float64)
    assert np.abs(half - (red + over) / 2).max() <= 1
    assert np.array_equal(np.asarray(maps.overlay("depth", 0)), red)
    assert np.array_equal(np.asarray(maps.overlay("depth", 1)), np.asarray(maps.image("depth")))
    with pytest.raises(ValueError, match="opacity is 2, it must be from 0 to 1"):
        maps.overlay("depth", 2)


def test_an_overlay_needs_an_image(maps: Prediction) -> None:
    alone = Prediction(dict(maps), maps.metadata)
    with pytest.raises(ValueError, match="does not know its image; give it"):
        alone.overlay("depth")
    large = PHOTO.image.resize((300, 200))
    assert np.array_equal(np.asarray(alone.overlay("depth", 0, large)), np.asarray(PHOTO.image))
    assert "<figcaption>image<" in maps._repr_html_()
    assert "<figcaption>image<" not in alone._repr_html_()


def test_a_saved_prediction_holds_the_values(maps: Prediction, tmp_path: Path) -> None:
    folder = maps.save(tmp_path / "new" / "folder")
    names = ["maps.npz", "metadata.json"]
    names += [f"{task}{end}" for task in maps for end in (".png", ".visualization.png")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    with np.load(folder / "maps.npz", allow_pickle=False) as arrays:
        assert json.loads(arrays["metadata"].item()) == maps.metadata
        for task, values in maps.items():
            assert np.array_equal(arrays[task], values)
    assert json.loads((folder / "metadata.json").read_text()) == maps.metadata
    with Image.open(folder / "depth.png") as png:
        assert np.array_equal(np.asarray(png), np.rint(1000 * RAW["depth"]))
        assert json.loads(png.text["mtcp"]) == maps.about("depth")  # type: ignore[attr-defined]
    with Image.open(folder / "semseg.png") as png:
        assert np.array_equal(np.asarray(png), RAW["semseg"])
    for task in maps:
        drawn = (folder / f"{task}.visualization.png").read_bytes()
        assert np.array_equal(by_the_letter(drawn, 3).reshape(2, 3, 3), np.asarray(maps.image(task)))
    assert maps.save(folder) == folder


def test_a_notebook_shows_image_and_maps(maps: Prediction) -> None:
    html = maps._repr_html_()
    assert html.count("data:image/png;base64,") == 5
    assert "depth: 1 to 6 m, near is bright" in html
    evil = {**maps.metadata["maps"]["normals"], "frame": "<script>"}
    metadata = {**maps.metadata, "maps": {"normals": evil}}
    assert "<script>" not in Prediction({"normals": RAW["normals"]}, metadata)._repr_html_()
