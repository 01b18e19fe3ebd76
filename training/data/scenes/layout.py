"""A random scene: a room, a camera in it, and people and furniture where the camera sees them."""

import math
from dataclasses import dataclass

import numpy as np

from training.data.scenes.camera import Array, Camera
from training.data.scenes.furniture import ON_FLOOR, ON_TABLE, TABLE_TOP, bottle, table
from training.data.scenes.people import person
from training.data.scenes.shapes import Box, Plane
from training.data.scenes.surface import random_color, random_surface
from training.data.scenes.things import Place, Scene, Solid, Thing

_PERSON_RADIUS = 0.35
_TRIES = 20


@dataclass(frozen=True)
class Room:
    """Inner width (x), height (y) and length (z) in metres; the floor's centre is the world's origin."""

    width: float
    height: float
    length: float

    def parts(self, rng: np.random.Generator) -> list[Thing]:
        """Floor, ceiling and walls, with a few windows, doors and pictures on the walls."""
        walls = random_surface(rng, random_color(rng, 0.3, 0.9), (0.1, 1.0))
        floor = random_surface(rng, random_color(rng, 0.05, 0.6), (0.1, 0.8))
        ceiling = random_surface(rng, random_color(rng, 0.6, 0.95), (0.4, 1.0))
        x, z = self.width / 2, self.length / 2
        sides = [
            (place, Plane(place.position, place.point(0, 0, 1) - place.position))
            for place in (
                Place(_vector(0, 0, -z)),
                Place(_vector(0, 0, z), math.pi),
                Place(_vector(-x, 0, 0), math.pi / 2),
                Place(_vector(x, 0, 0), -math.pi / 2),
            )
        ]
        parts = [
            Thing(("floor",), (Solid(Plane(_vector(0, 0, 0), _vector(0, 1, 0)), floor),), figure=False),
            Thing(
                ("ceiling",),
                (Solid(Plane(_vector(0, self.height, 0), _vector(0, -1, 0)), ceiling),),
                figure=False,
            ),
            Thing(("wall",), tuple(Solid(plane, walls) for _, plane in sides), figure=False),
        ]
        for place, _ in sides:
            if rng.random() < 0.6:
                along = self.width if abs(math.cos(place.yaw)) > 0.5 else self.length
                parts.append(_wall_thing(place, along, self.height, rng))
        return parts


def _vector(x: float, y: float, z: float) -> Array:
    return np.array([x, y, z], np.float32)


def _wall_thing(wall: Place, along: float, height: float, rng: np.random.Generator) -> Thing:
    """A flat box on a wall that starts at ``wall`` and is ``along`` metres wide."""
    name = str(rng.choice(["window", "door", "picture"]))
    half = rng.uniform(0.35, 0.5) if name == "door" else rng.uniform(0.25, 0.7)
    low, high = (0.0, 2.0) if name == "door" else (rng.uniform(0.9, 1.3), rng.uniform(1.5, height - 0.2))
    centre = rng.uniform(-1, 1) * (along / 2 - half - 0.1)
    thin = _vector(half, (high - low) / 2, 0.03)
    box = Box(wall.point(centre, (low + high) / 2, 0.0), thin, wall.yaw)
    bright = (0.6, 0.98) if name == "window" else (0.05, 0.8)
    return Thing((name,), (Solid(box, random_surface(rng, random_color(rng, *bright))),), figure=False)


class _Floor:
    """Finds free spots in front of the camera, inside the room."""

    def __init__(self, room: Room, camera: Camera, rng: np.random.Generator) -> None:
        self._room = room
        self._camera = camera
        self._rng = rng
        self._taken: list[tuple[Array, float]] = [(camera.position * _vector(1, 0, 1), 0.7)]

    def spot(self, radius: float) -> Place | None:
        """A place with ``radius`` metres to itself, facing more or less the camera; None when all is full."""
        yaw, half_field = self._camera.yaw, self._camera.field / 2
        forward, right = _vector(math.sin(yaw), 0, -math.cos(yaw)), _vector(math.cos(yaw), 0, math.sin(yaw))
        for _ in range(_TRIES):
            distance = self._rng.uniform(1.2, 5.0)
            aside = self._rng.uniform(-0.9, 0.9) * distance * math.tan(half_field)
            position = (self._camera.position + distance * forward + aside * right) * _vector(1, 0, 1)
            position = np.asarray(position, np.float32)
            if self._is_free(position, radius):
                self._taken.append((position, radius))
                return Place(position, -yaw + float(self._rng.normal(0, 0.9)))
        return None

    def _is_free(self, position: Array, radius: float) -> bool:
        inside = (
            abs(position[0]) + radius < self._room.width / 2
            and abs(position[2]) + radius < self._room.length / 2
        )
        return inside and all(
            np.linalg.norm(position - other) > radius + reach for other, reach in self._taken
        )


def random_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A scene of which an image of ``size`` (H, W) can be taken."""
    room = Room(*(float(rng.uniform(*span)) for span in ((3.0, 7.0), (2.3, 3.2), (3.5, 8.0))))
    camera = Camera(
        position=_vector(
            rng.uniform(-0.25, 0.25) * room.width,
            min(rng.uniform(0.8, 1.8), room.height - 0.4),
            room.length / 2 - rng.uniform(0.3, 1.2),
        ),
        pitch=float(np.clip(rng.normal(-0.18, 0.15), -0.7, 0.3)),
        yaw=float(rng.normal(0, 0.35)),
        field=math.radians(rng.uniform(50, 75)),
        size=size,
    )
    things = room.parts(rng)
    floor = _Floor(room, camera, rng)
    for _ in range(int(rng.choice([0, 1, 2], p=(0.25, 0.55, 0.2)))):
        if place := floor.spot(_PERSON_RADIUS):
            things.append(person(place, rng))
    makers = list(ON_FLOOR)
    odds = np.array([ON_FLOOR[maker][1] for maker in makers])
    for _ in range(int(rng.integers(1, 6))):
        maker = makers[rng.choice(len(makers), p=odds / odds.sum())]
        if place := floor.spot(ON_FLOOR[maker][0]):
            things.append(maker(place, rng))
            if maker is table:
                things += _on_table(place, rng)
    lamp = _vector(
        rng.uniform(-0.4, 0.4) * room.width,
        room.height - rng.uniform(0.1, 0.5),
        rng.uniform(-0.3, 0.45) * room.length,
    )
    return Scene(camera, tuple(things), lamp, float(rng.uniform(0.25, 0.6)), float(rng.uniform(0.8, 1.6)))


def _on_table(place: Place, rng: np.random.Generator) -> list[Thing]:
    """Up to two things on a table top, side by side."""
    things = []
    for side in (-1, 1):
        if rng.random() < 0.7:
            maker = ON_TABLE[rng.integers(len(ON_TABLE))] if side < 0 else bottle
            spot = Place(place.point(side * 0.2, TABLE_TOP, rng.uniform(-0.1, 0.1)), place.yaw)
            things.append(maker(spot, rng))
    return things
