"""What is encoded can be decoded again, to the precision that the format promises."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mtcp_serve.encoding import FORMATS, encode_json, encode_npz
from mtcp_serve.images import ImageInfo, Photo
from mtcp_serve.manifest import DepthTask, FileEntry, InputSpec, Manifest, TaskSpec
from mtcp_serve.pipeline import DenseMap, Prediction
from mtcp_serve.png import TEXT_KEY
from mtcp_serve.timings import Timings
from tests.mtcp_serve.support import TASKS

SEMSEG, DEPTH, NORMALS, SALIENCY, _ = TASKS
RELATIVE = DepthTask(name="depth", range=(2.0, 50.0), unit="relative", metric=False)
SHAPE = st.tuples(st.integers(1, 12), st.integers(1, 12))
POOL = ThreadPoolExecutor(2)


def floats(low: float, high: float) -> Any:
    return SHAPE.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(low, high, width=32)))


def prediction(task: TaskSpec, values: Any, size: tuple[int, int] | None = None) -> Prediction:
    height, width = size or values.shape[:2]
    manifest = Manifest(
        name="tiny",
        version="7",
        input=InputSpec(height=values.shape[0], width=values.shape[1]),
        tasks=(task,),
        files={"model.onnx": FileEntry(sha256="0" * 64)},
    )
    info = ImageInfo(width, height, "PNG", "RGB", exif_rotated=False, animated=False)
    photo = Photo(Image.new("RGB", (width, height)), info)
    return Prediction(manifest, photo, (DenseMap(task, values, height, width),), Timings())


def through_json(task: TaskSpec, values: Any) -> tuple[Any, Image.Image]:
    """The map's metadata and its decoded PNG."""
    answer = json.loads(encode_json(prediction(task, values), POOL))
    metadata = answer["maps"][task.name]
    image = Image.open(BytesIO(base64.b64decode(metadata.pop("png"))))
    image.load()
    assert json.loads(image.info[TEXT_KEY]) == metadata
    assert (metadata["model"], metadata["kind"]) == ("tiny", task.kind)
    assert (metadata["width"], metadata["height"]) == image.size
    return metadata, image


@given(SHAPE.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))))
def test_labels_png(values: Any) -> None:
    metadata, image = through_json(SEMSEG, values)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), values)
    assert metadata["present"] == sorted({*np.unique(values).tolist()} - {255})
    assert metadata["labels"][2] == {"id": 2, "name": "bright", "color": "#f0e0d0"}
    for label in metadata["labels"]:
        rows, columns = np.nonzero(values == label["id"])
        if rows.size:
            colour = image.convert("RGB").getpixel((int(columns[0]), int(rows[0])))
            assert "#{:02x}{:02x}{:02x}".format(*colour) == label["color"]  # type: ignore[misc]


@given(floats(0, 80))
def test_metric_depth_png_is_millimetres(values: Any) -> None:
    metadata, image = through_json(DEPTH, values)
    decoded = np.asarray(image).astype(np.float64) * metadata["png_scale"]
    valid = values > 0
    assert image.mode.startswith("I;16")
    assert np.array_equal(decoded > 0, valid)
    expected = values[valid].clip(0.001, 65.535)
    assert np.all(np.abs(decoded[valid] - expected) <= 0.00051)
    assert ("min" in metadata) == valid.any()
    if valid.any():
        assert metadata["min"] == pytest.approx(values[valid].min(), rel=1e-5)
        assert metadata["max"] == pytest.approx(values[valid].max(), rel=1e-5)


@given(floats(0, 60))
def test_relative_depth_png_spans_its_range(values: Any) -> None:
    metadata, image = through_json(RELATIVE, values)
    pixels = np.asarray(image).astype(np.float64)
    valid = values > 0
    assert metadata["unit"] == "relative"
    assert np.array_equal(pixels > 0, valid)
    decoded = metadata["png_offset"] + metadata["png_scale"] * pixels[valid]
    assert np.all(np.abs(decoded - values[valid].clip(2, 50)) <= metadata["png_scale"] * 0.52)


@given(floats(-1, 1))
def test_normals_png(values: Any) -> None:
    normals = np.stack([values, -values, values * 0], axis=-1)
    metadata, image = through_json(NORMALS, normals)
    decoded = np.asarray(image).astype(np.float64) / 127.5 - 1
    assert np.abs(decoded - normals).max() <= 0.5 / 127.5 + 1e-6
    assert metadata["frame"] == "x right, y up, z towards the camera"


@given(floats(0, 1))
def test_probability_png(values: Any) -> None:
    metadata, image = through_json(SALIENCY, values)
    assert np.abs(np.asarray(image) / 255 - values).max() <= 0.5 / 255 + 1e-6
    assert metadata["range"] == [0, 1]


@pytest.mark.parametrize("task", [DEPTH, SALIENCY], ids=lambda task: task.name)
@given(floats(0, 1))
def test_npz_is_exact(task: TaskSpec, values: Any) -> None:
    with np.load(BytesIO(encode_npz(prediction(task, values), POOL)), allow_pickle=False) as archive:
        assert archive.files == [task.name, "metadata"]
        assert np.array_equal(archive[task.name], values)
        assert archive[task.name].dtype == np.float32
        metadata = json.loads(str(archive["metadata"]))
    assert "png" not in metadata["maps"][task.name]
    assert metadata["models"] == [
        {"name": "tiny", "version": "7", "width": values.shape[1], "height": values.shape[0]}
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_resizes_and_times(name: str) -> None:
    found = prediction(SEMSEG, np.zeros((2, 3), np.uint8), size=(20, 30))
    body = FORMATS[name].encode(found, POOL)
    answer = json.loads(np.load(BytesIO(body))["metadata"].item() if name == "npz" else body)
    assert answer["maps"]["semseg"]["resampled"] == "nearest"
    assert (answer["maps"]["semseg"]["width"], answer["maps"]["semseg"]["height"]) == (30, 20)
    assert answer["timings_ms"]["encode"] > 0


def test_npz_is_stored_not_deflated() -> None:
    values = np.zeros((100, 100), np.uint8)
    assert len(encode_npz(prediction(SEMSEG, values), POOL)) > values.nbytes
