"""Furniture and other things that stand in rooms, each a few boxes, cones and ellipsoids."""

import math
from collections.abc import Callable

import numpy as np

from training.data.scenes.shapes import Box, Ellipsoid, Frustum
from training.data.scenes.surface import Surface, random_color, random_surface
from training.data.scenes.things import Place, Solid, Thing


def _box(
    place: Place, look: Surface, low: tuple[float, float, float], high: tuple[float, float, float]
) -> Solid:
    """A box between two corners given to the right of, above and in front of ``place``."""
    centre = [(first + last) / 2 for first, last in zip(low, high, strict=True)]
    half = np.array([(last - first) / 2 for first, last in zip(low, high, strict=True)], np.float32)
    return Solid(Box(place.point(*centre), half, place.yaw), look)


def _post(
    place: Place, look: Surface, x: float, z: float, low: float, high: float, bottom: float, top: float
) -> Solid:
    """An upright cone from ``low`` to ``high`` above ``place``."""
    return Solid(Frustum(place.point(x, low, z), high - low, bottom, top), look)


def _legs(place: Place, look: Surface, x: float, z: float, height: float, radius: float) -> list[Solid]:
    return [
        _post(place, look, side * x, end * z, 0, height, radius, radius)
        for side in (-1, 1)
        for end in (-1, 1)
    ]


def chair(place: Place, rng: np.random.Generator) -> Thing:
    """A seat, a back and four legs."""
    look, frame = random_surface(rng), random_surface(rng)
    half, seat, back = rng.uniform(0.2, 0.25), rng.uniform(0.4, 0.48), rng.uniform(0.8, 1.05)
    solids = _legs(place, frame, half - 0.03, half - 0.03, seat - 0.04, 0.02)
    solids.append(_box(place, look, (-half, seat - 0.05, -half), (half, seat, half)))
    solids.append(_box(place, look, (-half, seat, -half), (half, back, -half + 0.05)))
    return Thing(("chair",), tuple(solids))


def sofa(place: Place, rng: np.random.Generator) -> Thing:
    """A base with two arms, a back and cushions."""
    look = random_surface(rng)
    width, seat, back = rng.uniform(0.7, 1.0), rng.uniform(0.36, 0.44), rng.uniform(0.7, 0.9)
    solids = [
        _box(place, look, (-width, 0.04, -0.4), (width, seat, 0.4)),
        _box(place, look, (-width, seat, -0.4), (width, back, -0.2)),
    ]
    for side in (-1, 1):
        low, high = sorted((side * width, side * (width - 0.18)))
        solids.append(_box(place, look, (low, seat, -0.2), (high, seat + 0.2, 0.4)))
    radii = np.array([0.2, 0.17, 0.08], np.float32)
    cushion = Ellipsoid(place.point(rng.uniform(-0.4, 0.4), seat + 0.17, -0.1), radii, place.yaw)
    return Thing(("sofa",), (*solids, Solid(cushion, random_surface(rng))))


TABLE_TOP = 0.74
"""Height of tables, metres."""


def table(place: Place, rng: np.random.Generator) -> Thing:
    """A rectangular top on four legs or a round one on a column."""
    look = random_surface(rng)
    names = ("diningtable", "table")
    if rng.random() < 0.3:
        radius = rng.uniform(0.35, 0.5)
        return Thing(
            names,
            (
                _post(place, look, 0, 0, TABLE_TOP - 0.04, TABLE_TOP, radius, radius),
                _post(place, look, 0, 0, 0.03, TABLE_TOP - 0.04, 0.05, 0.05),
                _post(place, look, 0, 0, 0, 0.03, 0.25, 0.22),
            ),
        )
    x, z = rng.uniform(0.45, 0.7), rng.uniform(0.35, 0.45)
    solids = _legs(place, look, x - 0.05, z - 0.05, TABLE_TOP - 0.04, 0.03)
    return Thing(names, (*solids, _box(place, look, (-x, TABLE_TOP - 0.04, -z), (x, TABLE_TOP, z))))


def screen(place: Place, rng: np.random.Generator) -> Thing:
    """A monitor on a foot: a dark frame around a bright picture."""
    dark = random_surface(rng, random_color(rng, 0.01, 0.06))
    picture = random_surface(rng, random_color(rng, 0.2, 0.9), (0.05, 0.3))
    x, height = rng.uniform(0.22, 0.4), rng.uniform(0.26, 0.42)
    return Thing(
        ("tvmonitor", "television"),
        (
            _box(place, dark, (-x, 0.1, -0.03), (x, 0.1 + height, 0.0)),
            _box(place, picture, (-x + 0.02, 0.12, -0.01), (x - 0.02, 0.08 + height, 0.005)),
            _post(place, dark, 0, -0.04, 0.02, 0.2, 0.02, 0.02),
            _post(place, dark, 0, -0.02, 0, 0.02, 0.12, 0.1),
        ),
    )


def bottle(place: Place, rng: np.random.Generator) -> Thing:
    """A body, a shoulder, a neck and a cap."""
    glass = random_surface(rng, random_color(rng, 0.1, 0.8))
    radius, body, total = rng.uniform(0.03, 0.06), rng.uniform(0.12, 0.24), rng.uniform(0.26, 0.4)
    neck = radius * 0.4
    return Thing(
        ("bottle", "otherprop"),
        (
            _post(place, glass, 0, 0, 0, body, radius, radius),
            _post(place, glass, 0, 0, body, body + 0.06, radius, neck),
            _post(place, glass, 0, 0, body + 0.06, total, neck, neck),
            _post(place, random_surface(rng), 0, 0, total, total + 0.02, neck * 1.2, neck * 1.2),
        ),
    )


def plant(place: Place, rng: np.random.Generator) -> Thing:
    """A pot with leaves."""
    pot = random_surface(rng)
    height, radius = rng.uniform(0.18, 0.4), rng.uniform(0.12, 0.22)
    solids = [_post(place, pot, 0, 0, 0, height, radius * 0.7, radius)]
    for _ in range(rng.integers(4, 9)):
        green = np.array(
            [rng.uniform(0.02, 0.2), rng.uniform(0.15, 0.5), rng.uniform(0.02, 0.12)], np.float32
        )
        leaf = rng.uniform(0.06, 0.2, 3).astype(np.float32)
        spread = radius * 1.2
        x, z = rng.uniform(-spread, spread, 2)
        centre = place.point(x, height + rng.uniform(0.05, 0.5), z)
        solids.append(Solid(Ellipsoid(centre, leaf, rng.uniform(0, math.pi)), random_surface(rng, green)))
    return Thing(("pottedplant", "otherprop"), tuple(solids))


def carton(place: Place, rng: np.random.Generator) -> Thing:
    """A box on the floor, sometimes with a smaller one on top."""
    x, y, z = rng.uniform(0.12, 0.4, 3)
    solids = [_box(place, random_surface(rng), (-x, 0, -z), (x, 2 * y, z))]
    if rng.random() < 0.3:
        upper = Place(place.point(0, 2 * y, 0), place.yaw + rng.uniform(-0.6, 0.6))
        solids.append(
            _box(
                upper, random_surface(rng), (-0.7 * x, 0, -0.7 * z), (0.7 * x, rng.uniform(0.1, 0.4), 0.7 * z)
            )
        )
    return Thing(("box",), tuple(solids))


def ball(place: Place, rng: np.random.Generator) -> Thing:
    """A ball on the floor."""
    radius = float(rng.uniform(0.08, 0.35))
    shape = Ellipsoid(place.point(0, radius, 0), np.full(3, radius, np.float32))
    return Thing(("ball", "otherprop"), (Solid(shape, random_surface(rng, period=(0.05, 0.2))),))


def lamp(place: Place, rng: np.random.Generator) -> Thing:
    """A foot, a pole and a shade."""
    metal, shade = random_surface(rng), random_surface(rng, random_color(rng, 0.5, 0.95))
    height = rng.uniform(1.2, 1.7)
    return Thing(
        ("lamp",),
        (
            _post(place, metal, 0, 0, 0, 0.03, 0.16, 0.14),
            _post(place, metal, 0, 0, 0.03, height, 0.015, 0.015),
            _post(place, shade, 0, 0, height, height + 0.25, 0.2, 0.12),
        ),
    )


def cabinet(place: Place, rng: np.random.Generator) -> Thing:
    """A cupboard with two doors."""
    look, door = random_surface(rng), random_surface(rng)
    x, height, z = rng.uniform(0.3, 0.6), rng.uniform(0.7, 1.9), rng.uniform(0.2, 0.3)
    solids = [_box(place, look, (-x, 0, -z), (x, height, z))]
    for low, high in ((-x + 0.03, -0.01), (0.01, x - 0.03)):
        solids.append(_box(place, door, (low, 0.05, z - 0.01), (high, height - 0.04, z + 0.02)))
    return Thing(("cabinet",), tuple(solids))


Maker = Callable[[Place, np.random.Generator], Thing]

ON_FLOOR: dict[Maker, tuple[float, float]] = {
    chair: (0.35, 3.0),
    sofa: (1.1, 1.5),
    table: (0.85, 2.0),
    plant: (0.4, 1.5),
    carton: (0.55, 1.5),
    ball: (0.35, 1.5),
    lamp: (0.25, 0.7),
    cabinet: (0.7, 1.0),
}
"""What stands on floors: the radius it needs in metres, and how often it is chosen."""

ON_TABLE: tuple[Maker, ...] = (bottle, bottle, screen, screen, plant)
"""What stands on tables; twice is twice as often."""
