"""What a few known depths make of a map, on maps whose errors are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mtcp_serve.kinds import kriging
from mtcp_serve.kinds.kriging import Correction

HEIGHT, WIDTH = 48, 64
DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
ROOM = (4 - 2.5 * DOWN / HEIGHT).astype(np.float32)
"""From 4 m at the top to 1.5 m at the bottom."""
Places = list[tuple[float, float]]
AROUND: Places = [(8, 10), (8, 54), (24, 32), (40, 10), (40, 54)]


def corrected(
    depth: NDArray[np.float32], places: Places, known: NDArray[np.float64] | list[float]
) -> NDArray[np.float32]:
    rows, columns = np.array(places, np.float64).T
    return Correction.of(depth, rows, columns, np.asarray(known, np.float64)).apply(depth)


def at(depth: NDArray[np.float32], places: Places) -> NDArray[np.float64]:
    return np.array([depth[int(row), int(column)] for row, column in places], np.float64)


def drawn(count: int) -> Places:
    rng = np.random.default_rng(0)
    pixels = zip(rng.integers(0, HEIGHT, count), rng.integers(0, WIDTH, count), strict=True)
    return [(float(row), float(column)) for row, column in pixels]


@pytest.mark.parametrize("factor", [0.25, 0.8, 1.3, 5.0])
def test_a_scale_is_found_everywhere_from_a_few(factor: float) -> None:
    found = corrected(ROOM, AROUND, factor * at(ROOM, AROUND))
    assert np.abs(np.log(found / (factor * ROOM))).max() < 0.25 * abs(np.log(factor))


def test_what_is_right_stays() -> None:
    np.testing.assert_allclose(corrected(ROOM, AROUND, at(ROOM, AROUND)), ROOM, rtol=1e-5)


def test_one_distance_moves_its_surroundings_most_and_all_of_it_a_little() -> None:
    found = corrected(ROOM, [(24, 10)], [1.3 * ROOM[24, 10]])
    factor = found / ROOM
    assert 1.25 < factor[24, 10] <= 1.3
    assert np.unravel_index(factor.argmax(), factor.shape) == (24, 10)
    assert (np.diff(factor[24, 10:]) < 0).all()
    assert 1 < factor.min() < 1.15


def test_an_error_of_one_surface_stays_on_it() -> None:
    """A box of 1 m before a wall of 3 m, of which the box alone is wrong, known at both sides of its edge."""
    depth = np.full((HEIGHT, WIDTH), 3, np.float32)
    depth[16:32, 20:44] = 1
    places = [(24.0, 22.0), (24.0, 40.0), (24.0, 17.0), (24.0, 47.0)]
    found = corrected(depth, places, [1.3, 1.3, 3, 3])
    assert np.abs(found[16:32, 20:44] - 1.3).max() < 0.07
    assert np.abs(found[:, :20] - 3).max() < 0.15


def test_a_slope_is_followed_between_the_distances() -> None:
    truth = ROOM * np.exp(0.4 * (ACROSS / WIDTH - 0.5))
    places = [(float(row), float(column)) for row in range(4, 48, 8) for column in range(4, 64, 8)]
    found = corrected(ROOM, places, at(truth, places))
    inside = np.s_[4:-4, 4:-4]
    assert np.abs(np.log(found / truth))[inside].max() < 0.03
    assert np.abs(np.log(ROOM / truth))[inside].max() > 0.15


@pytest.mark.parametrize("times", [3, 1 / 3])
def test_a_wrong_distance_among_good_ones_is_overruled(times: float) -> None:
    places = drawn(30)
    known = 1.2 * at(ROOM, places)
    known[7] *= times
    found = corrected(ROOM, places, known)
    assert np.abs(np.log(found / (1.2 * ROOM))).max() < 0.1


def test_a_wrong_distance_is_overruled_however_long_that_takes() -> None:
    """Five of six agree on a factor of 2.3, the first has .4 of it; twenty rounds leave it half believed."""
    places: Places = [(39, 41), (40, 61), (14, 48), (3, 34), (2, 18), (5, 49)]
    found = corrected(ROOM, places, [1.88, 4.34, 7.45, 8.78, 8.78, 8.79])
    assert np.abs(np.log(found / (2.3 * ROOM))).mean() < 0.1


def test_contradictions_at_one_pixel_meet_between() -> None:
    found = corrected(ROOM, [(24, 32), (24, 32)], [2.0, 3.0])
    assert 2 < found[24, 32] < 3


def test_the_order_of_distances_does_not_matter() -> None:
    known = at(ROOM, AROUND) * [1.2, 0.9, 1.1, 1.3, 1]
    back = corrected(ROOM, AROUND[::-1], known[::-1])
    np.testing.assert_allclose(corrected(ROOM, AROUND, known), back, rtol=1e-5)


def test_thousands_are_as_good_as_many() -> None:
    rng, places = np.random.default_rng(1), drawn(5000)
    truth = ROOM * np.exp(0.4 * np.sin(ACROSS / 20))
    noisy = at(truth, places) * np.exp(0.02 * rng.standard_normal(5000))
    rows, columns = np.array(places).T
    correction = Correction.of(ROOM, rows, columns, noisy)
    assert len(correction._at) <= kriging._MOST
    assert np.abs(np.log(correction.apply(ROOM) / truth)).mean() < 0.02


def test_places_beyond_the_last_pixels_middle_are_of_it() -> None:
    found = corrected(ROOM, [(-0.5, -0.5), (47.5, 63.5)], [4.8, 1.9])
    assert 4.5 < found[0, 0] < 4.9
    assert 1.8 < found[-1, -1] < 2


def test_invalid_pixels_stay_invalid() -> None:
    depth = ROOM.copy()
    depth[:5] = 0
    found = corrected(depth, AROUND, 2 * at(depth, AROUND))
    assert (found[:5] == 0).all()
    assert (found[5:] > 1.5 * depth[5:]).all()


def test_it_is_the_mean_of_the_process_for_one_distance() -> None:
    """In closed form, where the error is so small that what is known is trusted as far as it can be."""
    off = 1e-3
    found = corrected(ROOM, [(24, 32)], [ROOM[24, 32] * np.exp(off)])
    noise = kriging._NOISE**2 * kriging._FREEDOM / (kriging._FREEDOM + 1)
    down, across = (DOWN - 24) / (0.6 * WIDTH), (ACROSS - 32) / (0.6 * WIDTH)
    nearer = np.log(ROOM / ROOM[24, 32]) / 0.7
    own = kriging._DEVIATION**2 * np.exp(-np.sqrt(across**2 + down**2 + nearer**2))
    wanted, shares = np.zeros_like(own), 0.0
    for deviation, likely in kriging._OFFSETS.items():
        total = deviation**2 + kriging._DEVIATION**2 + noise
        share = likely / np.sqrt(total)
        wanted += share * (deviation**2 + own) / total * off
        shares += share
    np.testing.assert_allclose(np.log(found / ROOM), wanted / shares, atol=2e-6)
