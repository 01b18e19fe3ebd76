"""Drawing a scene: what each pixel hits, then light on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.scenes.camera import Array
from training.data.scenes.shapes import dot
from training.data.scenes.things import Scene, Solid

_FALL_OFF = 4.0
"""Distance in metres at which the lamp gives half its light."""
_PERSON_WEIGHT = 3.0
"""How much more a person draws the eye than a thing of the same size and place."""


@dataclass(frozen=True)
class Drawing:
    """What a camera sees of a scene.

    Args:
        depth: metres along the optical axis, float32 [H, W].
        normals: unit vectors [3, H, W], x right, y up, z towards the camera.
        thing: index into ``Scene.things``, int [H, W].
        part: index into ``parts``, int [H, W].
        parts: names of the parts of people; the first is the empty one of everything else.
        image: uint8 RGB [3, H, W].
    """

    depth: Array
    normals: Array
    thing: NDArray[np.intp]
    part: NDArray[np.intp]
    parts: tuple[str, ...]
    image: NDArray[np.uint8]


def draw(scene: Scene, rng: np.random.Generator) -> Drawing:
    """The image of ``scene`` with its ground truth; ``rng`` makes the sensor's noise."""
    camera = scene.camera
    solids = [solid for thing in scene.things for solid in thing.solids]
    rays = camera.rays()
    depth, hit = _cast(scene, solids, rays)
    points = camera.position[:, None] + rays.reshape(3, -1) * depth.ravel()
    normals, colors = _surfaces(solids, hit.ravel(), points)
    lit = _light(scene, points, normals, colors)
    right, up, forward = camera.axes
    frame = np.stack([dot(axis, normals) for axis in (right, up, -forward)])
    owner = np.repeat(np.arange(len(scene.things)), [len(thing.solids) for thing in scene.things])
    parts = ("", *sorted({solid.part for solid in solids} - {""}))
    part = np.array([parts.index(solid.part) for solid in solids])
    return Drawing(
        depth, frame.reshape(rays.shape), owner[hit], part[hit], parts, _expose(lit, rng, camera.size)
    )


def _cast(scene: Scene, solids: list[Solid], rays: Array) -> tuple[Array, NDArray[np.int16]]:
    """Depth [H, W] and index of the solid [H, W] that each ray meets first."""
    camera = scene.camera
    depth = np.full(camera.size, np.inf, np.float32)
    hit = np.zeros(camera.size, np.int16)
    for index, solid in enumerate(solids):
        window = camera.window(*solid.shape.bounds)
        seen = depth[window]
        if seen.size == 0:
            continue
        t = solid.shape.hit(camera.position, rays[:, window[0], window[1]])
        nearer = t < seen
        seen[nearer] = t[nearer]
        hit[window][nearer] = index
    return depth, hit


def _surfaces(solids: list[Solid], hit: NDArray[np.int16], points: Array) -> tuple[Array, Array]:
    """World normals and linear colours, both [3, N], of the solids that were hit at ``points`` [3, N]."""
    order = np.argsort(hit, kind="stable")
    ends = np.cumsum(np.bincount(hit, minlength=len(solids)))
    grouped = points.take(order, axis=1)
    sorted_normals, sorted_colors = np.empty_like(points), np.empty_like(points)
    for solid, start, end in zip(solids, (0, *ends[:-1]), ends, strict=True):
        if start < end:
            there = grouped[:, start:end]
            sorted_normals[:, start:end] = solid.shape.normals(there)
            sorted_colors[:, start:end] = solid.surface.at(there)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return sorted_normals.take(back, axis=1), sorted_colors.take(back, axis=1)


def _light(scene: Scene, points: Array, normals: Array, colors: Array) -> Array:
    """Linear RGB [3, N] under the lamp and light from everywhere, a little more of it from above."""
    towards = scene.lamp[:, None] - points
    square = dot(towards, towards)
    facing = np.maximum(dot(towards, normals), 0) / np.sqrt(square)
    direct = (1 - scene.ambient) * facing / (1 + square / _FALL_OFF**2)
    ambient = scene.ambient * (0.75 + 0.25 * normals[1])
    lit: Array = colors * (scene.exposure * (direct + ambient))
    return lit


def _expose(light: Array, rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Gamma 2, white balance, sensor noise and rounding: uint8 [3, H, W]."""
    balance = rng.uniform(0.9, 1.1, (3, 1)).astype(np.float32)
    levels = np.sqrt(light * balance) * 255
    noise = rng.standard_normal(levels.shape, np.float32)
    noise *= rng.uniform(0.5, 5)
    levels += noise
    pixels: NDArray[np.uint8] = levels.clip(0, 255, out=levels).astype(np.uint8)
    return pixels.reshape(3, *size)


def salient_thing(scene: Scene, drawing: Drawing) -> int | None:
    """Index of the thing that draws the eye: large, central, people first; None in an empty room."""
    height, width = drawing.thing.shape
    central = np.outer(np.exp(-(np.linspace(-1, 1, height) ** 2)), np.exp(-(np.linspace(-1, 1, width) ** 2)))
    weight = np.bincount(drawing.thing.ravel(), central.ravel(), len(scene.things))
    for index, thing in enumerate(scene.things):
        if not thing.figure:
            weight[index] = 0
        elif "person" in thing.names:
            weight[index] *= _PERSON_WEIGHT
    return int(weight.argmax()) if weight.any() else None
