"""Maps that follow the edges of their image: the published filter, and what it is for."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.bundle.manifest import TaskSpec
from mtcp_serve.inference.pipeline import DenseMap
from mtcp_serve.kinds import resample
from mtcp_serve.kinds.base import Confidence
from mtcp_serve.kinds.confidence import ConfidenceTask
from mtcp_serve.kinds.guided import EPSILON, RADIUS, Guide
from mtcp_serve.kinds.resample import bands
from tests.mtcp_serve.kinds.test_resample import DEPTH, NORMALS, SALIENCY, SEMSEG, SIDES, values_for
from tests.mtcp_serve.support import TASKS, noise

RED, BLUE = (200, 60, 40), (30, 90, 180)


def whole(guide: Guide, values: NDArray[np.float32], height: int, epsilon: float = EPSILON) -> Any:
    return guide.along([values], epsilon).at(slice(0, height), 0)


def refined(task: TaskSpec, values: Any, pixels: NDArray[np.uint8]) -> Any:
    out: Any = np.empty((*pixels.shape[:2], *values.shape[2:]), task.array_type)
    task.refine(values, Guide(lambda: pixels), out)
    return out


def disc(size: int) -> NDArray[np.bool_]:
    down, across = np.mgrid[:size, :size] + 0.5 - size / 2
    inside: NDArray[np.bool_] = np.hypot(down, across * 1.3) < size / 3
    return inside


def scene(size: int = 480, coarse: int = 48) -> tuple[NDArray[np.bool_], Any, NDArray[np.float32]]:
    """A disc, its noisy picture, and how much of it each of ``coarse`` x ``coarse`` pixels shows."""
    inside = disc(size)
    pixels = np.where(inside[..., None], RED, BLUE) + np.random.default_rng(0).normal(0, 4, (size, size, 3))
    share = Image.fromarray(inside.astype(np.float32)).resize((coarse, coarse), Image.Resampling.BOX)
    return inside, pixels.clip(0, 255).astype(np.uint8), np.asarray(share)


@pytest.mark.parametrize(("shape", "size"), [((12, 16), (31, 45)), ((7, 30), (9, 64)), ((20, 8), (80, 8))])
@pytest.mark.parametrize("epsilon", [EPSILON, 0.1])
def test_it_is_the_published_filter(shape: tuple[int, int], size: tuple[int, int], epsilon: float) -> None:
    """Equations 14 to 16 of the paper in the plainest form, window by window, and then interpolated."""
    pixels, values = noise(*size), np.random.default_rng(1).random(shape, np.float32)
    grid = shape[1] // 2, shape[0] // 2
    colors = np.asarray(Image.fromarray(pixels).resize(grid, Image.Resampling.BOX), np.float64) / 255
    coarse = np.asarray(Image.fromarray(values).resize(grid, Image.Resampling.BOX), np.float64)
    functions = np.empty((grid[1], grid[0], 4))
    for row, column in np.ndindex(grid[1], grid[0]):
        window = np.s_[max(row - RADIUS, 0) : row + RADIUS + 1, max(column - RADIUS, 0) : column + RADIUS + 1]
        color, value = colors[window].reshape(-1, 3), coarse[window].ravel()
        mean = color.mean(axis=0)
        covariance = (color - mean).T @ (color - mean) / len(color)
        slope = np.linalg.solve(
            covariance + epsilon * np.eye(3), (color - mean).T @ (value - value.mean()) / len(color)
        )
        functions[row, column] = (*slope, value.mean() - slope @ mean)
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR)
        for plane in np.moveaxis(functions, -1, 0)
    ]
    slopes, offset = np.stack([np.asarray(plane) for plane in planes[:3]], axis=-1), np.asarray(planes[3])
    want = (slopes * pixels / 255).sum(axis=-1) + offset
    assert whole(Guide(lambda: pixels), values, size[0], epsilon) == pytest.approx(want, abs=2e-4)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 60, 2**16]))
def test_any_size_and_any_bands(h: int, w: int, height: int, width: int, band: int) -> None:
    """What is constant stays so, and in bands of rows it is what it is at once."""
    guide = Guide(lambda: noise(height, width))
    assert whole(guide, np.full((h, w), 0.7, np.float32), height) == pytest.approx(0.7, abs=1e-4)
    planes = [np.random.default_rng(seed).random((h, w), np.float32) for seed in range(2)]
    enlarged = guide.along(planes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BAND", band)
        cut = list(bands(height, width))
    for index, plane in enumerate(planes):
        found = np.concatenate([enlarged.at(rows, index) for rows in cut])
        assert found == pytest.approx(whole(Guide(lambda: noise(height, width)), plane, height), abs=1e-4)


def test_a_map_that_is_a_linear_function_of_the_color_comes_back() -> None:
    down, across = np.mgrid[:96, :128] / np.float32(128)
    pixels = np.stack([60 + 100 * down, 200 - 120 * across, 90 + 50 * down * across], axis=-1).astype(
        np.uint8
    )
    want = (pixels @ np.array([0.5, -0.3, 0.2]) / 255).astype(np.float32)
    small = np.asarray(Image.fromarray(want).resize((32, 24), Image.Resampling.BOX))
    assert whole(Guide(lambda: pixels), small, 96, 1e-7) == pytest.approx(want, abs=0.01)


def test_the_image_is_read_once_and_only_when_needed() -> None:
    calls = []

    def read() -> NDArray[np.uint8]:
        calls.append(1)
        return noise(20, 20)

    guide = Guide(read)
    assert not calls
    for epsilon in (0.1, 0.1, 0.2):
        whole(guide, np.ones((4, 4), np.float32), 20, epsilon)
    assert len(calls) == 1


def test_a_soft_outline_becomes_that_of_the_image() -> None:
    inside, pixels, share = scene()
    before, after = (np.abs(values - inside).mean() for values in (
        SALIENCY.resize(share, *inside.shape), refined(SALIENCY, share, pixels)
    ))  # fmt: skip
    assert after < before / 4
    assert refined(SALIENCY, np.zeros_like(share), pixels).max() < 0.001
    assert refined(SALIENCY, np.ones_like(share), pixels).min() > 0.999


def test_classes_end_where_the_image_says() -> None:
    inside, pixels, share = scene()
    ids = np.where(share > 0.5, 2, 0).astype(np.uint8)
    before = (SEMSEG.resize(ids, *inside.shape) != np.where(inside, 2, 0)).mean()
    after = (refined(SEMSEG, ids, pixels) != np.where(inside, 2, 0)).mean()
    assert before > 0.003
    assert after < before / 10


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 60, 2**16]), st.integers(0, 99))
def test_classes_far_away_are_not_looked_at_and_would_not_win(
    h: int, w: int, height: int, width: int, band: int, seed: int
) -> None:
    """Blocks of classes, of which a band of rows meets some: as if all were tried everywhere."""
    blocks = np.random.default_rng(seed).integers(0, 3, (3, 2), dtype=np.uint8)
    ids = np.asarray(Image.fromarray(blocks).resize((w, h), Image.Resampling.NEAREST))
    pixels = noise(height, width)
    planes = Guide(lambda: pixels).along([(ids == each).astype(np.float32) for each in range(3)], 0.01)
    shares = np.stack([planes.at(slice(0, height), each) for each in range(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BAND", band)
        found = refined(SEMSEG, ids, pixels)
    chosen = np.take_along_axis(shares, found[None].astype(int), axis=0)[0]
    assert chosen == pytest.approx(shares.max(axis=0), abs=1e-4)  # rounding decides between equals


def test_depth_steps_where_the_image_does_and_stays_in_its_range() -> None:
    inside, _, share = scene()
    pixels = np.where(inside[..., None], (250, 240, 200), (10, 20, 30)).astype(np.uint8)
    truth = np.where(inside, 1.5, 4).astype(np.float32)
    depths = (1.5 * share + 4 * (1 - share)).astype(np.float32)
    found = refined(DEPTH, depths, pixels)
    before = np.abs(DEPTH.resize(depths, *inside.shape) - truth)
    assert np.abs(found - truth).mean() < before.mean() * 0.8
    assert np.median(np.abs(found - truth)[before > 0.1]) < 0.1
    assert depths.min() <= found.min() <= found.max() <= depths.max()


def test_texture_is_no_relief() -> None:
    """A checkered floor that goes away: depth does not follow its squares."""
    checks = (np.indices((480, 640)) // 40).sum(axis=0) % 2
    pixels = np.repeat(np.where(checks, 150, 110).astype(np.uint8)[..., None], 3, axis=2)
    depths = np.repeat(np.geomspace(6, 2, 120, dtype=np.float32)[:, None], 160, axis=1)
    found, smooth = refined(DEPTH, depths, pixels), DEPTH.resize(depths, 480, 640)
    inner = slice(40, -40)  # at the border there is less to average
    assert np.abs(found / smooth - 1)[inner].max() < 0.01
    assert np.abs(refined(SALIENCY, (depths / 8), pixels) / smooth * 8 - 1)[inner].max() > 0.01


def test_with_an_invalid_pixel_depth_is_as_without_an_image() -> None:
    _, pixels, share = scene()
    depths = 1 + share
    depths[10, 12] = 0
    assert np.array_equal(refined(DEPTH, depths, pixels), DEPTH.resize(depths, *pixels.shape[:2]))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@given(SIDES, SIDES, SIDES, SIDES)
def test_every_size_to_every_size(task: TaskSpec, h: int, w: int, height: int, width: int) -> None:
    values = values_for(task, h, w)
    found = refined(task, values, noise(height, width))
    assert task.refines(values) == (task is not NORMALS)
    if task is NORMALS and (h, w) != (height, width):
        assert np.array_equal(found, task.resize(values, height, width))
    elif task is NORMALS:
        assert np.allclose(found, values, atol=1e-6)
    elif task.kind == "labels":
        assert set(np.unique(found)) <= set(np.unique(values))
    else:
        assert np.isfinite(found).all()
        assert 0 <= found.min() <= found.max() <= 1


def test_a_map_says_how_it_was_brought_to_its_size() -> None:
    """Guided only where it was: not without a guide, where it shrinks, or with an invalid pixel."""
    guide, depths = Guide(lambda: noise(30, 40)), np.full((6, 8), 2, np.float32)
    hole = depths.copy()
    hole[2, 3] = 0

    def said(values: NDArray[np.float32], size: tuple[int, int], guide: Guide | None) -> str:
        return DenseMap("tiny", DEPTH, values, *size, guide=guide).resampled

    assert said(depths, (30, 40), guide) == "guided"
    assert said(depths, (30, 40), None) == "bilinear"
    assert said(depths, (6, 8), guide) == "none"
    assert said(depths, (4, 5), guide) == "bilinear"
    assert said(depths, (4, 40), guide) == "guided"
    assert said(hole, (30, 40), guide) == "bilinear"
    normals = values_for(NORMALS, 6, 8)
    assert DenseMap("tiny", NORMALS, normals, 30, 40, guide=guide).resampled == "bilinear"
    sure = ConfidenceTask.beside(DEPTH, Confidence(output="sure", height=6, width=8))
    assert DenseMap("tiny", sure, depths, 30, 40, guide=guide).resampled == "bilinear"
