"""Each kind of map has its own rule of resizing."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.kinds import resample
from mtcp_serve.kinds.resample import bands
from tests.mtcp_serve.support import TASKS

SEMSEG, DEPTH, NORMALS, SALIENCY, _ = TASKS
SIDES = st.integers(1, 40)


def values_for(task: TaskSpec, height: int, width: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    match task.kind:
        case "labels":
            return rng.integers(0, 3, (height, width), dtype=np.uint8)
        case "normals":
            normals = rng.normal(size=(height, width, 3)).astype(np.float32)
            return normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        case _:
            return rng.uniform(0.5, 1, (height, width)).astype(np.float32)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_same_size_is_the_same_map(task: TaskSpec) -> None:
    values = values_for(task, 5, 7)
    assert task.resize(values, 5, 7) is values
    assert task.resampled(values, 5, 7) == "none"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(SIDES, SIDES, SIDES, SIDES)
def test_every_size_to_every_size(task: TaskSpec, h: int, w: int, height: int, width: int) -> None:
    values = values_for(task, h, w)
    resized = task.resize(values, height, width)
    assert resized.shape == (height, width, *values.shape[2:])
    assert resized.dtype == values.dtype
    if task.kind == "labels":
        assert set(np.unique(resized)) <= set(np.unique(values))
    elif task.kind == "normals":
        assert np.allclose(np.linalg.norm(resized, axis=-1), 1, atol=1e-5)
    else:
        assert resized.min() >= values.min() - 1e-6
        assert resized.max() <= values.max() + 1e-6


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 60, 2**16]), st.sampled_from([(), (2,)]))
def test_bilinear_in_bands_is_what_pillow_makes_at_once(
    h: int, w: int, height: int, width: int, band: int, channels: tuple[int, ...]
) -> None:
    values = np.random.default_rng(h * w).random((h, w, *channels), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BAND", band)
        found = np.empty((height, width, *channels), np.float32)
        resample.resize(values, found)
    for plane, want in zip(np.atleast_3d(found).T, np.atleast_3d(values).T, strict=True):
        image = Image.fromarray(np.ascontiguousarray(want.T)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        assert np.array_equal(plane.T, np.asarray(image))


@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 2)])
def test_bytes_are_bilinear_too(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = np.zeros((20, 15, *shape[2:]), np.uint8)
    resample.resize(values, found)
    plane = Image.fromarray(np.ascontiguousarray(np.atleast_3d(values)[..., -1]))
    want = np.asarray(plane.resize((15, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(np.atleast_3d(found)[..., -1], want)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 60, 2**16]))
def test_normals_in_bands_are_the_blend_at_unit_length(
    h: int, w: int, height: int, width: int, band: int
) -> None:
    values = values_for(NORMALS, h, w)
    blend = np.empty((height, width, 3), np.float32)
    resample.resize(values, blend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BAND", band)
        found = NORMALS.resize(values, height, width)
    length = np.linalg.norm(blend, axis=-1, keepdims=True)
    long = length[..., 0] > 0.01  # others have no direction left, or hardly one
    assert np.allclose(found[long], (blend / np.maximum(length, 0.01))[long], rtol=0, atol=1e-6)


def test_borders_along_rows_and_columns_stay_where_they_are() -> None:
    values = np.array([[0, 0, 2], [0, 0, 2], [1, 1, 255]], np.uint8)
    large = SEMSEG.resize(values, 18, 12)
    assert SEMSEG.resampled(values, 18, 12) == "majority"
    for line in (0, -1):  # away from where three classes meet
        assert np.array_equal(large[line], values[line].repeat(4))
        assert np.array_equal(large[:, line], values[:, line].repeat(6))


def test_a_line_of_one_pixel_keeps_its_width() -> None:
    values = np.zeros((5, 5), np.uint8)
    values[:, 2] = 7
    assert np.array_equal(SEMSEG.resize(values, 50, 50), values.repeat(10, 0).repeat(10, 1))


@given(st.floats(0.15, 1.4), st.integers(2, 9))
def test_a_straight_slanted_border_has_no_steps(angle: float, times: int) -> None:
    """Every pixel whose class differs from that of the exact line is within half a small pixel of it."""

    def side(size: int) -> Any:
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        return np.cos(angle) * x + np.sin(angle) * y

    large = SEMSEG.resize((side(24) > 0).astype(np.uint8), 24 * times, 24 * times)
    far = np.abs(side(24 * times)) > 0.55 / 24
    inside = np.zeros_like(far)
    inside[2 * times : -2 * times, 2 * times : -2 * times] = True  # the rim has no neighbours to go by
    assert np.array_equal(large[far & inside], (side(24 * times) > 0)[far & inside])


@given(arrays(np.uint8, (6, 7), elements=st.integers(0, 3)), st.integers(1, 30), st.integers(1, 30))
def test_labels_are_the_largest_of_their_classes_splines(values: Any, height: int, width: int) -> None:
    def splines(size: int, count: int) -> Any:
        place = (np.arange(size) + 0.5) * count / size - 0.5
        distance = np.abs(place[:, None] - np.arange(-1, count + 1))
        near = 0.75 - distance**2
        return np.where(distance < 0.5, near, 0.5 * np.maximum(1.5 - distance, 0) ** 2)

    planes = [np.pad(values == label, 1, mode="edge").astype(float) for label in range(4)]
    maps = np.stack([splines(height, 6) @ plane @ splines(width, 7).T for plane in planes])
    best, second = np.sort(maps, axis=0)[[-1, -2]]
    clear = best - second > 1e-5
    large = SEMSEG.resize(values, height, width)
    assert np.array_equal(large[clear], maps.argmax(0)[clear])


@pytest.mark.parametrize("task", [DEPTH, SALIENCY], ids=lambda task: task.name)
def test_depth_and_saliency_are_bilinear(task: TaskSpec) -> None:
    resized = task.resize(np.array([[1.0, 3.0]], np.float32), 1, 4)
    assert resized[0].tolist() == [1.0, 1.5, 2.5, 3.0]
    assert task.resampled(resized, 1, 8) == "bilinear"


@given(arrays(np.bool_, (6, 7)), st.integers(6, 30), st.integers(7, 30))
def test_invalid_depth_never_bleeds(valid: Any, height: int, width: int) -> None:
    values = np.where(valid, np.float32(4), np.float32(0))
    resized = DEPTH.resize(values, height, width)
    assert set(np.unique(resized)) <= {0.0, 4.0}
    assert np.array_equal(resized > 0, resample.nearest(valid, height, width))


@given(SIDES, SIDES, SIDES, SIDES)
def test_the_nearest_pixel_is_the_one_that_covers_the_middle(h: int, w: int, height: int, width: int) -> None:
    found = resample.nearest(np.arange(h * w).reshape(h, w), height, width)
    middles = [[Fraction(2 * i + 1, 2) * n / m for i in range(m)] for n, m in ((h, height), (w, width))]
    assert found.tolist() == [[int(y) * w + int(x) for x in middles[1]] for y in middles[0]]


def test_depth_away_from_invalid_pixels_stays_smooth() -> None:
    values = np.array([[0.0, 1.0, 1.0, 2.0, 2.0]], np.float32)
    resized = DEPTH.resize(values, 1, 10)[0]
    assert resized.tolist() == [0, 0, 1, 1, 1, 1.25, 1.75, 2, 2, 2]


def test_normals_that_cancel_out_take_the_nearest() -> None:
    values = np.array([[[0, 0, 1], [0, 0, -1]]], np.float32)
    resized = NORMALS.resize(values, 1, 3)[0]
    assert np.allclose(np.abs(resized[:, 2]), 1)


def test_the_nearest_normal_is_that_of_the_middle_not_of_the_corner() -> None:
    x, y, z = np.eye(3, dtype=np.float32)
    values = np.stack([[x, -x], [z, -z], [y, -y]])
    resized = NORMALS.resize(values, 4, 3)  # the second row's middle is in the second of three
    assert np.abs(resized[1, 1]).tolist() == [0, 0, 1]


def test_a_zero_normal_stays_zero() -> None:
    resized = NORMALS.resize(np.zeros((2, 2, 3), np.float32), 4, 4)
    assert not resized.any()


@given(st.integers(1, 5000), st.integers(1, 100_000))
def test_bands_cover_every_row_once(height: int, width: int) -> None:
    rows = [row for band in bands(height, width) for row in range(height)[band]]
    assert rows == list(range(height))


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (7, 5)])
@pytest.mark.parametrize("band", [1, 10, 2**16])
def test_pixels_are_converted_band_by_band(
    shape: tuple[int, ...], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "_BAND", band)
    values = np.random.default_rng(0).random(shape, np.float32)
    image = resample.quantize(values, np.uint8, lambda v: np.rint(v * 255))
    assert image.mode == ("RGB" if len(shape) == 3 else "L")
    assert np.array_equal(np.asarray(image), np.rint(values * 255))
