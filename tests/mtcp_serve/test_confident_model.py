"""A model that says how sure it is, in a program: the arrays, pictures, files and points of it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtcp_serve
from mtcp_serve import Model
from mtcp_serve.errors import InvalidParameterError
from tests.mtcp_serve.confident import OWN_WORDS, expected_confidences, make_confident_bundle
from tests.mtcp_serve.support import HEIGHT, WIDTH, noise

IMAGE = noise(HEIGHT, WIDTH)
DEPTH = expected_confidences(IMAGE[None])["depth"][0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with mtcp_serve.load(make_confident_bundle(tmp_path_factory.mktemp("tiny")), threads=1) as model:
        yield model


def test_it_is_had_where_it_is_asked_for(model: Model) -> None:
    maps = model.predict(IMAGE, confidence=True)
    assert list(maps) == ["semseg", "depth", "normals", "saliency", "parsing"]
    found = maps.confidence("depth")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, DEPTH, atol=1e-6)
    assert maps.confidence("semseg").shape == (HEIGHT, WIDTH)
    assert maps.about("depth")["confidence"]["criterion"] == OWN_WORDS
    with pytest.raises(KeyError, match="no confidence in 'normals'; there is one in semseg, depth"):
        maps.confidence("normals")
    with pytest.raises(KeyError, match=r"ask for it: predict\(..., confidence=True\)"):
        model.predict(IMAGE).confidence("depth")
    with pytest.raises(InvalidParameterError, match="does not say how sure it is"):
        model.predict(IMAGE, ["normals"], confidence=True)


def test_asyncio_and_batches_have_it(model: Model) -> None:
    alone = asyncio.run(model.apredict(IMAGE, ["depth"], confidence=True))
    _, second = model.predict_batch([noise(30, 20), IMAGE], ["depth"], confidence=True)
    for maps in (alone, second):
        np.testing.assert_allclose(maps.confidence("depth"), DEPTH, atol=1e-6)


def test_pictures_are_grey_and_a_notebook_shows_them(model: Model) -> None:
    maps = model.predict(IMAGE, ["depth"], confidence=True)
    picture = maps.confidence_image("depth")
    assert (picture.mode, picture.size) == ("L", (WIDTH, HEIGHT))
    assert np.abs(np.asarray(picture) / 255 - DEPTH).max() <= 0.5 / 255 + 1e-6
    assert f"depth_confidence: {DEPTH.mean():.0%} sure on average" in maps._repr_html_()
    assert "confidence" not in model.predict(IMAGE, ["depth"])._repr_html_()


def test_it_is_saved(model: Model, tmp_path: Path) -> None:
    folder = model.predict(IMAGE, ["semseg", "normals"], confidence=True).save(tmp_path)
    with Image.open(folder / "semseg_confidence.png") as picture:
        about = json.loads(picture.text["mtcp"])  # type: ignore[attr-defined]
        grey = np.asarray(picture)
    with np.load(folder / "maps.npz") as arrays:
        assert np.abs(arrays["semseg_confidence"] - grey / 255).max() <= 0.5 / 255 + 1e-6
        assert set(arrays) == {"semseg", "semseg_confidence", "normals", "metadata"}
    assert (about["criterion"], about["resampled"]) == ("the label is the true one", "bilinear")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["without_confidence"] == ["normals"]


def test_unsure_points_are_left_out(model: Model) -> None:
    maps = model.predict(IMAGE, ["depth"], confidence=True)
    every, some = maps.points(edges=True), maps.points(edges=True, min_confidence=0.5)
    assert every.confidence is not None
    assert some.confidence is not None
    np.testing.assert_array_equal(some.positions, every.positions[every.confidence >= 0.5])
    assert 0 < len(some.positions) < len(every.positions)
    plain = model.predict(IMAGE, ["depth"])
    assert plain.points().confidence is None
    with pytest.raises(InvalidParameterError, match="how sure the model is of depth"):
        plain.points(min_confidence=0.5)
