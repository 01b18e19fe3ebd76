"""Pictures for people."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtcp_serve.bundle.manifest import DepthTask, FileEntry, InputSpec, Manifest
from mtcp_serve.inference.images import DecodedImage, ImageInfo
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import resample
from mtcp_serve.kinds.colormaps import DEFAULT, colormap
from mtcp_serve.outputs.visualize import overview
from tests.mtcp_serve.support import TASKS

SEMSEG, DEPTH, NORMALS, SALIENCY, _ = TASKS


def lightness(colours: np.ndarray) -> np.ndarray:
    return colours.astype(np.float64) @ (0.2126, 0.7152, 0.0722)


def test_the_colour_table_rises_in_lightness() -> None:
    heat = colormap(DEFAULT)
    assert heat.shape == (256, 3)
    assert (np.diff(lightness(heat)) > -0.8).all()  # rounding to 8 bits may dip by less than a step


def test_near_is_bright_and_invalid_is_grey() -> None:
    picture = np.asarray(DEPTH.color(np.array([[1.0, 2.0, 3.0, 0.0]], np.float32)))[0]
    assert lightness(picture[0]) > lightness(picture[1]) > lightness(picture[2])
    assert picture[3].tolist() == [128, 128, 128]
    assert (np.asarray(DEPTH.color(np.zeros((2, 2), np.float32))) == 128).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (13, 11)])
@pytest.mark.parametrize("rows", [1, 3, 99])
@pytest.mark.parametrize("table", ["heat", "turbo_r"])
def test_depth_is_drawn_and_described_band_by_band(
    shape: tuple[int, int], rows: int, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "_BAND", rows * shape[1])
    rng = np.random.default_rng(3)
    values = np.where(rng.random(shape) < 0.3, 0, rng.uniform(0.5, 9, shape)).astype(np.float32)
    values[-1, -1] = 2  # at least one is valid
    valid = values > 0
    near, far = np.percentile(values[valid], [2, 98])
    closeness = ((np.float32(far) - values) / np.float32(max(far - near, 1e-6))).clip(0, 1)
    want = np.where(valid[..., None], colormap(table)[np.rint(closeness * 255).astype(int)], 128)
    assert isinstance(DEPTH, DepthTask)
    assert DEPTH.spread(values) == (near, far)
    assert np.array_equal(np.asarray(DEPTH.color(values, None, table)), want)
    about = DEPTH.describe(values, model="m", width=shape[1], height=shape[0], resampled="none")
    found = (about.model_dump()["min"], about.model_dump()["max"])
    assert found == pytest.approx((values[valid].min(), values[valid].max()), rel=1e-5)


def test_other_kinds() -> None:
    labels = np.asarray(SEMSEG.color(np.array([[0, 2, 255]], np.uint8)))[0]
    assert labels.tolist() == [[0x10, 0x20, 0x30], [0xF0, 0xE0, 0xD0], [255, 255, 255]]
    normal = np.asarray(NORMALS.color(np.array([[[0.0, 0.0, 1.0]]], np.float32)))[0, 0]
    assert normal.tolist() == [128, 128, 255]
    grey = np.asarray(SALIENCY.color(np.array([[0.5, 1.0]], np.float32)))[0]
    assert grey.tolist() == [[128] * 3, [255] * 3]


def test_captions() -> None:
    assert SEMSEG.caption(np.array([[0, 2, 2, 255]], np.uint8)) == "bright, dark"
    assert DEPTH.caption(np.array([[0, 1.25, 4]], np.float32)) == "1.2 to 4 m, near is bright"
    assert DEPTH.caption(np.zeros((1, 1), np.float32)) == "nothing valid"
    assert NORMALS.caption(np.zeros((1, 1, 3), np.float32)).startswith("x right")
    assert SALIENCY.caption(np.array([[0.5]], np.float32)) == "50% of the picture"
    relative = DepthTask(name="depth", range=(0, 9), unit="relative", metric=False)
    assert " m" not in relative.caption(np.ones((1, 1), np.float32))


def test_overview_has_a_picture_for_every_map() -> None:
    raw: dict[str, Any] = {
        "semseg": np.ones((3, 4), np.uint8),
        "depth": np.ones((3, 4), np.float32),
        "normals": np.ones((3, 4, 3), np.float32),
        "saliency": np.ones((3, 4), np.float32),
    }
    info = ImageInfo(8, 400, "PNG", "RGB", exif_rotated=False, animated=False)
    photo = DecodedImage(Image.new("RGB", (8, 400), "red"), info)
    maps = tuple(DenseMap("tiny", task, raw[task.name], 400, 8) for task in TASKS[:4])
    manifest = Manifest(
        name="tiny",
        version="1",
        input=InputSpec(height=3, width=4),
        tasks=TASKS[:4],
        files={"model.onnx": FileEntry(sha256="0" * 64)},
    )
    sheet = overview(photo, DenseMaps((manifest,), info, maps, Timings()))
    assert sheet.height > 2 * 480
    colours = {colour for _, colour in sheet.getcolors(2**20) or []}
    assert {(255, 0, 0), (0x80, 0x80, 0x80), (255, 255, 255)} <= colours
