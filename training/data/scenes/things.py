"""What a scene is made of: solids that belong to things."""

from dataclasses import dataclass

import numpy as np

from training.data.scenes.camera import Array, Camera
from training.data.scenes.shapes import Shape, turn
from training.data.scenes.surface import Surface


@dataclass(frozen=True)
class Solid:
    """One shape with its surface; ``part`` names the part of a person it is, in the ``fashion`` labels."""

    shape: Shape
    surface: Surface
    part: str = ""


@dataclass(frozen=True)
class Thing:
    """An object or a part of the room.

    Args:
        names: class names in order of preference; a label space uses the first one it has.
        solids: what it is made of.
        figure: whether it stands in the room and can be the salient object.
    """

    names: tuple[str, ...]
    solids: tuple[Solid, ...]
    figure: bool = True


@dataclass(frozen=True)
class Place:
    """A spot on the floor or a table: ``position`` [3] in metres and the direction things there face."""

    position: Array
    yaw: float = 0.0

    def point(self, x: float, y: float, z: float) -> Array:
        """World coordinates [3] of a point given to the right of, above and in front of the spot."""
        return np.asarray(self.position + turn(np.array([x, y, z], np.float32), self.yaw), np.float32)


@dataclass(frozen=True)
class Scene:
    """A camera, the things it sees and the light.

    Args:
        camera: where from.
        things: the room's parts and what stands in it.
        lamp: position [3] of the point light.
        ambient: share of light that comes from everywhere, 0..1.
        exposure: brightness of a white surface facing the lamp a metre away, before the ambient light.
    """

    camera: Camera
    things: tuple[Thing, ...]
    lamp: Array
    ambient: float
    exposure: float
