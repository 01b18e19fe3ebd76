"""A person made of ellipsoids, capsules and cones, dressed in the classes of the ``fashion`` label space."""

import math

import numpy as np

from training.data.scenes.camera import Array
from training.data.scenes.shapes import Box, Capsule, Ellipsoid, Frustum
from training.data.scenes.surface import Surface, random_color, random_surface
from training.data.scenes.things import Place, Solid, Thing

_SKIN = np.array([[0.80, 0.56, 0.42], [0.62, 0.38, 0.25], [0.36, 0.20, 0.12], [0.16, 0.08, 0.05]], np.float32)
_HAIR = np.array(
    [[0.02, 0.015, 0.01], [0.12, 0.06, 0.03], [0.45, 0.30, 0.12], [0.35, 0.34, 0.33]], np.float32
)

HAIR, SKIN, UPPER, DRESS, LOWER, FOOTWEAR, ACCESSORIES = (
    "hair and hat",
    "skin",
    "upper clothes",
    "dress",
    "lower clothes",
    "footwear",
    "accessories",
)

Look = tuple[Surface, str]
"""A surface and the part of a person it covers."""


def _near(colors: Array, rng: np.random.Generator) -> Surface:
    color = colors[rng.integers(len(colors))] * rng.uniform(0.8, 1.2)
    return Surface(np.stack((color, color)).astype(np.float32))


class _Body:
    """Collects the solids of one person; lengths are shares of the body height."""

    def __init__(self, place: Place, height: float) -> None:
        self.place = place
        self.height = height
        self.solids: list[Solid] = []

    def point(self, x: float, y: float, z: float) -> Array:
        return self.place.point(x * self.height, y * self.height, z * self.height)

    def ellipsoid(self, look: Look, at: tuple[float, float, float], *radii: float) -> None:
        shape = Ellipsoid(self.point(*at), np.array(radii, np.float32) * self.height, self.place.yaw)
        self.solids.append(Solid(shape, *look))

    def limb(self, look: Look, start: Array, end: Array, radius: float) -> None:
        self.solids.append(Solid(Capsule(start, end, radius * self.height), *look))

    def cone(self, look: Look, low: float, high: float, bottom: float, top: float) -> None:
        base = self.point(0, low, 0)
        shape = Frustum(base, (high - low) * self.height, bottom * self.height, top * self.height)
        self.solids.append(Solid(shape, *look))


def person(place: Place, rng: np.random.Generator) -> Thing:
    """A standing or walking person 1.1 to 1.95 m tall."""
    body = _Body(place, float(rng.uniform(1.1, 1.95)))
    skin: Look = (_near(_SKIN, rng), SKIN)
    top: Look = (random_surface(rng, period=(0.02, 0.15)), UPPER)
    _head(body, skin, rng)
    if rng.random() < 0.25:
        top = (top[0], DRESS)
        body.cone(top, float(rng.uniform(0.2, 0.36)), 0.58, float(rng.uniform(0.1, 0.17)), 0.075)
        _legs(body, skin, skin, rng)
    else:
        lower: Look = (random_surface(rng, random_color(rng, 0.03, 0.5), (0.02, 0.15)), LOWER)
        body.ellipsoid(lower, (0, 0.52, 0), 0.095, 0.075, 0.068)
        _legs(body, lower, skin if rng.random() < 0.35 else lower, rng)
    body.ellipsoid(top, (0, 0.69, 0), 0.108, 0.16, 0.07)
    _arms(body, top, top if rng.random() < 0.5 else skin, skin, rng)
    if rng.random() < 0.3:
        _bag(body, rng)
    return Thing(("person",), tuple(body.solids))


def _head(body: _Body, skin: Look, rng: np.random.Generator) -> None:
    body.limb(skin, body.point(0, 0.82, 0), body.point(0, 0.87, 0), 0.03)
    body.ellipsoid(skin, (0, 0.925, 0), 0.048, 0.065, 0.055)
    hair: Look = (_near(_HAIR, rng), HAIR)
    body.ellipsoid(hair, (0, 0.945, -0.012), 0.053, 0.055, 0.056)
    if rng.random() < 0.4:
        body.ellipsoid(hair, (0, 0.87, -0.035), 0.05, 0.09, 0.03)
    if rng.random() < 0.2:
        hat: Look = (random_surface(rng), HAIR)
        body.cone(hat, 0.957, 0.967, 0.09, 0.088)
        body.cone(hat, 0.967, 1.01, 0.055, 0.05)


def _legs(body: _Body, thigh: Look, shin: Look, rng: np.random.Generator) -> None:
    shoe: Look = (random_surface(rng, random_color(rng, 0.02, 0.7)), FOOTWEAR)
    stride = float(rng.uniform(0, 0.35)) * rng.choice([-1, 1])
    spread = float(rng.uniform(0.0, 0.03))
    for side in (-1, 1):
        swing = side * stride
        hip = (side * 0.05, 0.5, 0.0)
        knee = (side * (0.055 + spread), 0.5 - 0.23 * math.cos(swing), 0.23 * math.sin(swing))
        # The shin hangs straighter than the thigh, so that the rear foot is lifted a little.
        ankle = (knee[0], max(0.045, knee[1] - 0.225 * math.cos(swing / 2)), knee[2] + 0.1 * math.sin(swing))
        body.limb(thigh, body.point(*hip), body.point(*knee), 0.042)
        body.limb(shin, body.point(*knee), body.point(*ankle), 0.03)
        body.ellipsoid(shoe, (ankle[0], ankle[1] - 0.018, ankle[2] + 0.03), 0.03, 0.026, 0.07)


def _arms(body: _Body, sleeve: Look, forearm: Look, skin: Look, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        lift, forward, bend = rng.uniform(0.08, 0.5), rng.uniform(-0.4, 0.6), rng.uniform(0, 1.2)
        shoulder = np.array([side * 0.1, 0.8, 0.0])
        down = np.array([side * math.sin(lift), -math.cos(lift) * math.cos(forward), math.sin(forward)])
        elbow = shoulder + 0.17 * down / np.linalg.norm(down)
        bent = np.array([side * math.sin(lift) * 0.5, -math.cos(forward + bend), math.sin(forward + bend)])
        wrist = elbow + 0.15 * bent / np.linalg.norm(bent)
        body.limb(sleeve, body.point(*shoulder), body.point(*elbow), 0.03)
        body.limb(forearm, body.point(*elbow), body.point(*wrist), 0.022)
        body.ellipsoid(skin, (wrist[0], wrist[1] - 0.01, wrist[2]), 0.022, 0.03, 0.022)


def _bag(body: _Body, rng: np.random.Generator) -> None:
    side = float(rng.choice([-1, 1]))
    look: Look = (random_surface(rng), ACCESSORIES)
    half = np.array([0.025, 0.06, 0.08], np.float32) * body.height
    body.solids.append(Solid(Box(body.point(side * 0.16, 0.48, 0), half, body.place.yaw), *look))
    strap = body.point(side * 0.15, 0.53, 0), body.point(side * 0.09, 0.84, 0)
    body.limb(look, *strap, 0.008)
