"""Solids that rays can hit: where, and with which normal.

Rays start at one origin [3] and have directions [3, ...] of any length; a hit is their parameter, ``inf`` for
none.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.data.scenes.camera import Array


class Shape(Protocol):
    """A convex solid, seen from outside."""

    @property
    def bounds(self) -> tuple[Array, float]:
        """Centre [3] and radius of a sphere around it."""
        ...

    def hit(self, origin: Array, rays: Array) -> Array:
        """First parameter [...] at which ``origin + t * rays`` [3, ...] enters, ``inf`` where it does not."""
        ...

    def normals(self, points: Array) -> Array:
        """Outward unit normals [3, N] at surface points [3, N]."""
        ...


def dot(first: Array, second: Array) -> Array:
    """Dot products [...] of vectors [3] or [3, ...] with vectors [3, ...]."""
    (x, y, z), (u, v, w) = first, second
    return np.asarray(x * u + y * v + z * w, np.float32)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.sqrt(dot(vectors, vectors)), np.float32)


def _column(vector: Array, like: Array) -> Array:
    return vector.reshape(3, *(1,) * (like.ndim - 1))


def _away_from_zero(values: Array) -> Array:
    return np.where(np.abs(values) < 1e-9, np.float32(1e-9), values)


def _first_root(a: Array, half_b: Array, c: Array) -> Array:
    """Smaller positive root of ``a t^2 + 2 half_b t + c`` with a > 0, ``inf`` without one."""
    root = half_b * half_b - a * c
    t = (-half_b - np.sqrt(np.maximum(root, 0))) / a
    return np.where((root > 0) & (t > 0), t, np.float32(np.inf))


def turn(vectors: Array, yaw: float) -> Array:
    """``vectors`` [3, ...] turned by ``yaw`` about the vertical, from z towards x."""
    cos, sin = np.float32(math.cos(yaw)), np.float32(math.sin(yaw))
    x, y, z = vectors
    return np.stack((cos * x + sin * z, y, cos * z - sin * x))


@dataclass(frozen=True)
class Plane:
    """The half space behind the plane through ``point`` [3] with unit ``normal`` [3]; has no bounds."""

    point: Array
    normal: Array

    @property
    def bounds(self) -> tuple[Array, float]:
        """A sphere without end."""
        return self.point, math.inf

    def hit(self, origin: Array, rays: Array) -> Array:
        """Where rays meet the plane from its front."""
        with np.errstate(divide="ignore"):
            t = dot(self.normal, self.point - origin) / dot(self.normal, rays)
        return np.where(t > 0, t, np.float32(np.inf))

    def normals(self, points: Array) -> Array:
        """The plane's normal everywhere."""
        return np.broadcast_to(self.normal[:, None], points.shape)


@dataclass(frozen=True)
class Box:
    """A cuboid around ``centre`` [3] with ``half`` sides [3], turned by ``yaw``."""

    centre: Array
    half: Array
    yaw: float = 0.0

    @property
    def bounds(self) -> tuple[Array, float]:
        """The sphere through the corners."""
        return self.centre, float(np.linalg.norm(self.half))

    def hit(self, origin: Array, rays: Array) -> Array:
        """Where the last of the three slabs is entered before the first is left."""
        start = turn(origin - self.centre, -self.yaw)
        inverse = 1 / _away_from_zero(turn(rays, -self.yaw))
        middle = -_column(start, rays) * inverse
        reach = _column(self.half, rays) * np.abs(inverse)
        enter, leave = (middle - reach).max(0), (middle + reach).min(0)
        return np.where((enter < leave) & (enter > 0), enter, np.float32(np.inf))

    def normals(self, points: Array) -> Array:
        """The axis along which a point is at its side."""
        local = turn(points - self.centre[:, None], -self.yaw)
        side = np.argmax(np.abs(local) - self.half[:, None], axis=0)
        each = np.arange(points.shape[1])
        normals = np.zeros_like(points)
        normals[side, each] = np.sign(local[side, each])
        return turn(normals, self.yaw)


@dataclass(frozen=True)
class Ellipsoid:
    """All points around ``centre`` [3] within ``radii`` [3], turned by ``yaw``."""

    centre: Array
    radii: Array
    yaw: float = 0.0

    @property
    def bounds(self) -> tuple[Array, float]:
        """The sphere of the largest radius."""
        return self.centre, float(self.radii.max())

    def hit(self, origin: Array, rays: Array) -> Array:
        """A unit sphere after scaling."""
        start = turn(origin - self.centre, -self.yaw) / self.radii
        directions = turn(rays, -self.yaw) / _column(self.radii, rays)
        return _first_root(
            dot(directions, directions), dot(start, directions), dot(start, start) - np.float32(1)
        )

    def normals(self, points: Array) -> Array:
        """The gradient of the quadratic form."""
        local = turn(points - self.centre[:, None], -self.yaw) / (self.radii**2)[:, None]
        return turn(_unit(local), self.yaw)


@dataclass(frozen=True)
class Capsule:
    """All points within ``radius`` of the segment from ``start`` [3] to ``end`` [3]."""

    start: Array
    end: Array
    radius: float

    @property
    def bounds(self) -> tuple[Array, float]:
        """A sphere around both ends."""
        half = float(np.linalg.norm(self.end - self.start)) / 2
        return (self.start + self.end) * np.float32(0.5), half + self.radius

    def hit(self, origin: Array, rays: Array) -> Array:
        """The side, or the ball at the end that the side's hit lies beyond."""
        axis, offset = self.end - self.start, origin - self.start
        square, along, before = dot(axis, axis), dot(axis, rays), dot(axis, offset)
        length, towards = dot(rays, rays), dot(offset, rays)
        t = _first_root(
            np.maximum(square * length - along * along, 1e-9),
            square * towards - before * along,
            square * (dot(offset, offset) - np.float32(self.radius**2)) - before * before,
        )
        place = before + np.where(np.isfinite(t), t, 0) * along
        far = place > square / 2
        offset_end = origin - self.end
        ball = _first_root(
            length,
            np.where(far, dot(offset_end, rays), towards),
            np.where(far, dot(offset_end, offset_end), dot(offset, offset)) - np.float32(self.radius**2),
        )
        side = (place >= 0) & (place <= square)
        return np.where(np.isfinite(t), np.where(side, t, ball), np.float32(np.inf))

    def normals(self, points: Array) -> Array:
        """Away from the nearest point of the segment."""
        axis = self.end - self.start
        local = points - self.start[:, None]
        share = np.clip(dot(axis, local) / dot(axis, axis), 0, 1)
        return _unit(local - share * axis[:, None])


@dataclass(frozen=True)
class Frustum:
    """An upright cylinder or cone: radius ``bottom`` at ``base`` [3], ``top`` at ``height`` above it."""

    base: Array
    height: float
    bottom: float
    top: float

    @property
    def bounds(self) -> tuple[Array, float]:
        """The sphere around a cylinder of the larger radius."""
        x, y, z = self.base
        middle = np.array([x, y + self.height / 2, z], np.float32)
        return middle, math.hypot(self.height / 2, max(self.bottom, self.top))

    @property
    def _slope(self) -> np.float32:
        return np.float32((self.top - self.bottom) / self.height)

    def hit(self, origin: Array, rays: Array) -> Array:
        """The nearest of the two sides of the cone and the two lids."""
        x, y, z = origin - self.base
        dx, dy, dz = rays
        slope, radius = self._slope, np.float32(self.bottom) + self._slope * y
        a = _away_from_zero(dx * dx + dz * dz - (slope * dy) ** 2)
        half_b = x * dx + z * dz - slope * dy * radius
        discriminant = half_b * half_b - a * (x * x + z * z - radius * radius)
        root = np.sqrt(np.maximum(discriminant, 0))
        best = np.full(rays.shape[1:], np.inf, np.float32)
        for t in ((-half_b - root) / a, (-half_b + root) / a):
            level = y + t * dy
            good = (discriminant > 0) & (t > 0) & (level >= 0) & (level <= self.height)
            best = np.where(good & (t < best), t, best)
        for lid, reach in ((0.0, self.bottom), (self.height, self.top)):
            t = (np.float32(lid) - y) / _away_from_zero(dy)
            good = (t > 0) & ((x + t * dx) ** 2 + (z + t * dz) ** 2 < reach**2)
            best = np.where(good & (t < best), t, best)
        return best

    def normals(self, points: Array) -> Array:
        """Of the surface the point is closest to: a lid or the side."""
        x, y, z = points - self.base[:, None]
        spread = np.maximum(np.hypot(x, z), 1e-9)
        slope = self._slope
        flat = 1 / np.sqrt(1 + slope * slope)
        normals = np.stack((x / spread * flat, np.full_like(x, -slope * flat), z / spread * flat))
        side = np.abs(spread - (self.bottom + slope * y)) * flat
        closest = np.argmin(np.stack((side, np.abs(y), np.abs(y - self.height))), axis=0)
        for lid, up in ((1, -1.0), (2, 1.0)):
            normals[:, closest == lid] = np.array([[0], [up], [0]], np.float32)
        return normals
