import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.scenes.camera import Array, Camera
from training.data.scenes.shapes import Box, Capsule, Ellipsoid, Frustum, Plane, Shape, turn


def vector(*values: float) -> Array:
    return np.array(values, np.float32)


SHAPES: list[Shape] = [
    Box(vector(0.2, 0.1, -3), vector(0.5, 0.8, 0.3), 0.7),
    Ellipsoid(vector(-0.1, 0.2, -3), vector(0.5, 0.9, 0.4), -0.4),
    Capsule(vector(-0.5, -0.6, -3), vector(0.4, 0.7, -2.5), 0.3),
    Frustum(vector(0, -0.5, -3), 1.0, 0.7, 0.3),
    Frustum(vector(0, -0.5, -3), 1.0, 0.2, 0.6),
    Frustum(vector(0, -0.5, -3), 1.0, 0.4, 0.4),
    Frustum(vector(0, 0.2, -2), 0.02, 0.6, 0.58),
]
SIZE = (30, 40)


def camera(height: float, pitch: float, yaw: float = 0.0) -> Camera:
    return Camera(vector(0, height, 0), pitch, yaw, math.radians(60), SIZE)


def is_inside(shape: Shape, points: Array) -> Array:
    """How deep [N] points [3, N] are inside, negative outside; an independent definition of each shape."""
    if isinstance(shape, Box):
        local = turn(points - shape.centre[:, None], -shape.yaw)
        return np.asarray((shape.half[:, None] - np.abs(local)).min(0))
    if isinstance(shape, Ellipsoid):
        local = turn(points - shape.centre[:, None], -shape.yaw) / shape.radii[:, None]
        return np.asarray(1 - np.linalg.norm(local, axis=0))
    if isinstance(shape, Capsule):
        steps = np.linspace(0, 1, 60)[:, None, None]
        spine = shape.start[:, None] * (1 - steps) + shape.end[:, None] * steps
        return np.asarray(shape.radius - np.linalg.norm(points - spine, axis=1).min(0))
    assert isinstance(shape, Frustum)
    x, y, z = points - shape.base[:, None]
    radius = shape.bottom + (shape.top - shape.bottom) * y / shape.height
    return np.asarray(np.minimum(np.minimum(y, shape.height - y), radius - np.hypot(x, z)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("height", "pitch"), [(0.0, 0.0), (1.5, -0.45), (-1.5, 0.45)])
def test_rays_hit_the_surface_from_outside(shape: Shape, height: float, pitch: float) -> None:
    view = camera(height, pitch)
    rays = view.rays().reshape(3, -1)
    t = shape.hit(view.position, rays)
    hit = np.isfinite(t)
    assert 0.01 < hit.mean() < 0.9
    points = view.position[:, None] + rays[:, hit] * t[hit]
    assert np.abs(is_inside(shape, points)).max() < 2e-3
    # No ray that misses passes through the inside, and no hit is preceded by one.
    for depth in np.linspace(0.5, 5, 30, dtype=np.float32):
        before = ~hit | (depth < t - 0.02)
        assert is_inside(shape, view.position[:, None] + rays[:, before] * depth).max() < 2e-3
    normals = shape.normals(points)
    assert np.allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-4)
    assert ((normals * rays[:, hit]).sum(0) < 0.02).all()
    # A step along the normal leaves the solid.
    assert (is_inside(shape, points + 0.01 * normals) < 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=40)
@given(
    x=st.floats(-3, 3), y=st.floats(-2, 2), z=st.floats(-6, 1), pitch=st.floats(-1, 1), yaw=st.floats(-3, 3)
)
def test_a_window_holds_all_of_a_shape(
    shape: Shape, x: float, y: float, z: float, pitch: float, yaw: float
) -> None:
    view = Camera(vector(x, y, z), pitch, yaw, math.radians(70), SIZE)
    rows, columns = view.window(*shape.bounds)
    seen = np.isfinite(shape.hit(view.position, view.rays()))
    seen[rows, columns] = False
    assert not seen.any()


def test_rays_are_one_metre_of_depth_long() -> None:
    view = camera(1.0, -0.3, 0.5)
    depth = np.tensordot(view.axes[2], view.rays(), 1)
    assert np.allclose(depth, 1, atol=1e-6)
    assert np.allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-6)


def test_pitch_looks_up_and_yaw_looks_right() -> None:
    assert np.allclose(camera(0, 0).axes[2], [0, 0, -1])
    assert camera(0, 0.2).axes[2][1] > 0
    assert camera(0, 0, 0.2).axes[2][0] > 0


def test_a_plane_is_seen_from_its_front_wherever_it_is() -> None:
    view = camera(1.5, 0.0)
    t = Plane(vector(0, 0, 0), vector(0, 1, 0)).hit(view.position, view.rays())
    assert np.isfinite(t[SIZE[0] // 2 :]).all()
    assert np.isinf(t[: SIZE[0] // 2]).all()
