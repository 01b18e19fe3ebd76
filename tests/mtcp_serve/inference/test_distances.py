"""Known distances: how they are written, which are refused, and where they lie in a map."""

from typing import Any

import numpy as np
import pytest

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.distances import MOST, Distances, check_measurable
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.kinds import DepthTask
from tests.mtcp_serve.support import TASKS

METRIC = DepthTask(name="depth", range=(0.1, 10))
RELATIVE = DepthTask(name="far", range=(0, 1), unit="relative", metric=False)


def image(width: int, height: int) -> ImageInfo:
    return ImageInfo(width, height, "JPEG", "RGB", exif_rotated=False, animated=False)


def test_the_text_of_a_request_comes_back() -> None:
    given = [(0, 0, 1.5), (123.25, 7, 0.001), (1e3, 2e3, 65.535)]
    for text in (Distances.of(given).text(), "0,0,1.5, 123.25, 7,0.001,\n1000,2000,65.535"):
        np.testing.assert_array_equal(Distances.parse(text).points, given)


def test_what_is_given_may_be_filled_anew() -> None:
    buffer = np.ones((2, 3))
    known = Distances.of(buffer)
    buffer[:] = 9
    assert (known.points == 1).all()


def test_the_text_is_short_and_exact_to_a_thousandth() -> None:
    points = np.random.default_rng(0).uniform([0, 0, 0.001], [16383, 16383, 65.535], (1000, 3))
    text = Distances.of(points).text()
    assert len(text) < 28 * len(points)
    np.testing.assert_allclose(Distances.parse(text).points, points, rtol=0, atol=5.01e-4)


@pytest.mark.parametrize("points", [np.ones((4, 3), np.float32), ((1, 1, 1),), [np.array([1, 2, 3])]])
def test_arrays_and_lists_are_taken(points: Any) -> None:
    assert Distances.of(points).points.shape == (len(points), 3)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "not triples"),
        ([(1, 2)], "not triples"),
        ([(1, 2, 3, 4)], "not triples"),
        ([(1, 2, 3), (1, 2)], "not triples"),
        ((1, 2, 3), "not triples"),
        ("1,2,3", "not triples"),
        ([(1, 2, float("nan"))], "not triples"),
        ([(float("inf"), 2, 3)], "not triples"),
        ([(1, 2, 3), (4, 5, 0)], r"the distance at \(4, 5\) is 0 m"),
        ([(4, 5, -1)], "is -1 m"),
        ([(4, 5, 66)], "is 66 m; depth maps have 0.001 to 65.535 m"),
        (np.ones((MOST + 1, 3)), f"there are {MOST + 1} distances"),
        ([(10**400, 1, 1)], "not triples"),
        (np.ma.masked_equal([[1, 1, 1], [2, 2, 5]], 5), "not triples"),
    ],
)
def test_what_no_map_can_have_is_refused(points: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        Distances.of(points)


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,", "a,b,c", "1,2,3,4", "1;2;3", "1,2,3;4,5,6"])
def test_what_is_not_written_so_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameterError, match="distances are") as refusal:
        Distances.parse(text)
    assert refusal.value.hint == "write x,y,metres,x,y,metres"


@pytest.mark.parametrize(("x", "y"), [(-0.6, 0), (0, -0.6), (40, 0), (39.6, 0), (0, 29.6)])
def test_a_place_outside_of_the_image_is_named(x: float, y: float) -> None:
    with pytest.raises(InvalidParameterError, match=rf"at \({x:g}, {y:g}\).* 40 x 30 pixels"):
        Distances.of([(3, 3, 1), (x, y, 1)]).check(image(40, 30))
    Distances.of([(-0.5, -0.5, 1), (39.5, 29.5, 1)]).check(image(40, 30))


def test_depth_in_metres_is_needed() -> None:
    check_measurable([RELATIVE, METRIC])
    for tasks in ([], [RELATIVE], [task for task in TASKS if task.name != "depth"]):
        with pytest.raises(InvalidParameterError, match="depth in metres"):
            check_measurable(tasks)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (32, 24), (8, 6), (3000, 200)])
def test_pixels_of_the_image_are_found_in_the_map(width: int, height: int) -> None:
    """A map of one distance but for one pixel, which an image of any size and shape has at its own place."""
    depth = np.full((24, 32), 5, np.float32)
    depth[6, 20] = 1
    place = 20.5 * width / 32 - 0.5, 6.5 * height / 24 - 0.5
    found, about = Distances.of([(*place, 1.2)]).correct(depth, image(width, height))
    assert found[6, 20] == pytest.approx(1.2, rel=0.02)
    assert about.points == 1
    assert about.disagreeing == 0
    assert 1 < about.factor < 1.15


def test_what_the_map_cannot_agree_with_is_counted() -> None:
    depth = np.full((24, 32), 2, np.float32)
    good = [(float(x), float(y), 2.4) for x in range(2, 32, 5) for y in range(2, 24, 5)]
    found, about = Distances.of([*good, (16, 12, 9)]).correct(depth, image(32, 24))
    assert about.points == len(good) + 1
    assert about.disagreeing == 1
    assert about.factor == pytest.approx(1.2, abs=0.02)
    assert np.abs(found - 2.4).max() < 0.15


def test_corrected_depth_stays_what_a_map_can_say() -> None:
    depth = np.array([[0, 1], [60, 30]], np.float32)
    for metres in (65.535, 0.001):
        found, _ = Distances.of([(1, 0, metres)]).correct(depth, image(2, 2))
        assert found[0, 0] == 0
        assert found[depth > 0].min() >= np.float32(0.001)
        assert found.max() <= np.float32(65.535)


def test_a_place_without_depth_is_refused() -> None:
    depth = np.full((24, 32), 2, np.float32)
    depth[3, 4] = 0
    with pytest.raises(InvalidParameterError, match=r"no depth at \(4, 3\)"):
        Distances.of([(1, 1, 1), (4, 3, 1)]).correct(depth, image(32, 24))
