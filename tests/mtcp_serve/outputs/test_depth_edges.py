"""Depth edges, in closed form: what slants stays whole, and nothing hangs between two surfaces."""

from time import thread_time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mtcp_serve.inference.camera import Camera
from mtcp_serve.outputs.depth_edges import sharpen
from mtcp_serve.outputs.mesh import Mesh, build_mesh

HEIGHT, WIDTH = 144, 192
CAMERA = Camera.of_fov_x(WIDTH, HEIGHT, 60, "request")
RAYS = CAMERA.unproject(np.ones((HEIGHT, WIDTH), np.float32))
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
FARTHEST = 100.0


def plane(turned: float, tilted: float, distance: float = 2.0, rays: Any = RAYS) -> NDArray[np.float32]:
    """Depths of a plane that faced the camera, turned about the upright axis and tilted; 0 where none."""
    yaw, pitch = np.radians([turned, tilted])
    normal = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    along = -(rays @ normal)
    depth: NDArray[np.float32] = np.zeros(along.shape, np.float32)
    met = along > distance / FARTHEST
    depth[met] = distance / along[met]
    return depth


def blurred(depth: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
    """As a network has it: edges become ramps, ``pixels`` wide."""
    logs = np.log(depth)
    for axis in (0, 1):
        logs = uniform_filter1d(logs, pixels, axis=axis, mode="nearest")
    return np.exp(logs)


def meshed(depth: NDArray[np.float32], camera: Camera = CAMERA) -> Mesh:
    return build_mesh(sharpen(depth), depth, camera)


def parts(mesh: Mesh) -> NDArray[np.int32]:
    """The connected part of the surface that each vertex belongs to."""
    ends = np.concatenate([mesh.triangles[:, [0, 1]], mesh.triangles[:, [1, 2]]])
    size = len(mesh.positions)
    edges = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (size, size))
    labels: NDArray[np.int32] = connected_components(edges, directed=False)[1]
    return labels


def whole(depth: NDArray[np.float32]) -> int:
    """Triangles of a surface that is torn nowhere."""
    valid = depth > 0
    squares = [valid[:-1, :-1], valid[:-1, 1:], valid[1:, :-1], valid[1:, 1:]]
    return int(sum((squares[1] & squares[2] & squares[at]).sum() for at in (0, 3)))


@pytest.mark.parametrize("fov", [2, 60, 100])
@pytest.mark.parametrize(("turned", "tilted"), [(80, 0), (0, 80), (-60, 40), (87, 0), (0, 0)])
def test_a_plane_stays_whole_however_it_slants(fov: float, turned: float, tilted: float) -> None:
    camera = Camera.of_fov_x(WIDTH, HEIGHT, fov, "request")
    depth = plane(turned, tilted, rays=camera.unproject(np.ones((HEIGHT, WIDTH), np.float32)))
    sharp = sharpen(depth)
    assert np.array_equal(sharp.depths, depth)
    assert not sharp.middles.any()
    mesh = build_mesh(sharp, depth, camera)
    assert len(mesh.triangles) == whole(depth) > 0


def test_a_room_stays_whole() -> None:
    """A floor and two walls that go away, a wall behind them; all meet in creases."""
    surfaces = np.stack([plane(0, 88, 1.2), plane(86, 0, 1.5), plane(-86, 0, 1.5), plane(0, 0, 6.0)])
    depth = np.where(surfaces > 0, surfaces, FARTHEST).min(axis=0)
    assert depth.max() == 6
    assert len(meshed(depth).triangles) == whole(depth) == 2 * (HEIGHT - 1) * (WIDTH - 1)


def test_noise_and_relief_are_no_edges() -> None:
    rng = np.random.default_rng(0)
    depth = plane(0, 70) * rng.uniform(0.997, 1.003, (HEIGHT, WIDTH)).astype(np.float32)
    depth[40:80, 40:80] *= 0.96
    sharp = sharpen(depth)
    assert np.array_equal(sharp.depths, depth)


@pytest.mark.parametrize("ramp", [1, 3, 5])
@pytest.mark.parametrize(("near", "far"), [(2.0, 2.3), (2.0, 3.0), (1.0, 8.0)])
def test_a_box_before_a_wall_is_apart_from_it(ramp: int, near: float, far: float) -> None:
    depth = np.full((HEIGHT, WIDTH), far, np.float32)
    depth[50:100, 60:120] = near
    soft = blurred(depth, ramp)
    mesh = meshed(soft)
    depths = -mesh.positions[:, 2]
    is_near = np.isclose(depths, near, rtol=1e-5)
    assert (is_near | np.isclose(depths, far, rtol=1e-5)).all()  # nothing is between the two
    labels = parts(mesh)
    assert labels.max() == 1  # two parts
    assert len(set(labels[is_near])) == len(set(labels[~is_near])) == 1
    assert len(mesh.positions) == HEIGHT * WIDTH  # and none is lost
    places = mesh.places * (WIDTH, HEIGHT)
    beside = (places[:, 1] > 65) & (places[:, 1] < 85)
    box, wall = places[beside & is_near], places[beside & ~is_near]
    assert [box[:, 0].min(), box[:, 0].max()] == pytest.approx(
        [60, 120], abs=0.02
    )  # its rim is where it ends
    assert wall[wall[:, 0] < 90, 0].max() == pytest.approx(59.5, abs=0.02)  # none that shows both surfaces


@pytest.mark.parametrize("ramp", [1, 3, 5])
def test_a_sphere_keeps_its_silhouette(ramp: int) -> None:
    """2 m away, 0.5 m in radius, before a wall at 4 m: seen where the rays meet it."""
    distance, radius = 2.0, 0.5
    lengths = (RAYS**2).sum(axis=-1)
    inside = distance**2 - lengths * (distance**2 - radius**2)
    hit = inside >= 0
    sphere = (distance - np.sqrt(np.maximum(inside, 0))) / lengths
    depth = np.where(hit, sphere, 4.0).astype(np.float32)
    mesh = meshed(blurred(depth, ramp))
    depths = -mesh.positions[:, 2]
    silhouette = distance - radius**2 / distance  # the depth at which the rays touch it
    ball = depths < 3
    assert depths[ball].max() < silhouette + 0.01
    assert depths[~ball] == pytest.approx(4, rel=1e-4)
    assert parts(mesh).max() == 1
    away = (mesh.places * (WIDTH, HEIGHT) - (WIDTH / 2, HEIGHT / 2))[ball]
    outline = CAMERA.fx * radius / np.sqrt(distance**2 - radius**2)
    distances = np.hypot(away[:, 0], away[:, 1])
    assert distances.max() == pytest.approx(outline, abs=0.6)
    angles = (np.arctan2(away[:, 1], away[:, 0]) * 40 / np.pi).astype(int)
    rim = np.array([distances[angles == angle].max() for angle in range(-39, 40)])
    assert rim.std() < 0.2  # a smooth contour: stairs have 0.3
    assert rim.mean() == pytest.approx(outline, abs=0.3)


def test_a_thin_bar_keeps_its_depth() -> None:
    depth = np.full((HEIGHT, WIDTH), 5, np.float32)
    depth[:, 90:95] = 2
    mesh = meshed(blurred(depth, 3))
    depths = -mesh.positions[:, 2]
    assert np.isclose(depths, 2, rtol=1e-4).sum() == 5 * HEIGHT
    assert np.isclose(depths, 5, rtol=1e-4).sum() == (WIDTH - 5) * HEIGHT


def test_a_box_on_a_floor_stands_on_it() -> None:
    """Where the box stands the depths meet: the surface is torn beside and above, and joined below."""
    floor = plane(0, 75, 1.0)
    depth = np.where(floor > 0, np.minimum(floor, 12), 12).astype(np.float32)
    foot = 118
    front = depth[foot, 0]
    depth[60:foot, 70:110] = front
    mesh = meshed(blurred(depth, 3))
    places = mesh.places * (WIDTH, HEIGHT)
    spans = places[mesh.triangles]
    standing = (spans[:, :, 0].min(axis=1) > 75) & (spans[:, :, 0].max(axis=1) < 105)
    standing &= (spans[:, :, 1].min(axis=1) > foot - 12) & (spans[:, :, 1].max(axis=1) < foot + 12)
    assert standing.sum() > 2 * 28 * 22 * 0.9
    assert parts(mesh).max() == 0
    above = np.ptp(mesh.positions[mesh.triangles][:, :, 2], axis=1)[spans[:, :, 1].max(axis=1) < 100]
    assert above.max() < 0.5 * (12 - front)


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
def test_of_noise_every_vertex_stays_about_its_pixel(spread: float) -> None:
    rng = np.random.default_rng(1)
    depth = np.exp(rng.normal(0, spread, (HEIGHT, WIDTH))).astype(np.float32)
    depth[rng.random(depth.shape) < 0.05] = 0
    sharp = sharpen(depth)
    assert np.array_equal(sharp.depths > 0, depth > 0)
    assert sharp.depths.max() <= depth.max()
    mesh = build_mesh(sharp, depth, CAMERA)
    assert np.isfinite(mesh.positions).all()
    lengths = np.ptp(mesh.places[mesh.triangles] * (WIDTH, HEIGHT), axis=1)
    assert lengths.max() < 3  # pixels: no vertex is moved far from where it was


def test_a_long_winding_edge_takes_no_more_work_than_another() -> None:
    """Depth is carried along 3000 pixels of a spiral's arm; each of them is looked at a few times only.

    Looking at all that is left for each further pixel took 30 times as long, and longer for larger maps.
    """
    rows, columns = np.mgrid[-180:180, -240:240]
    turns = np.hypot(columns, rows) / 8 - np.arctan2(rows, columns) / (2 * np.pi)
    along = np.floor(turns) + np.arctan2(rows, columns) / (2 * np.pi)
    depth = (np.where(turns % 1 < 0.5, 2, 9) * np.exp(0.004 * along)).astype(np.float32)
    start = thread_time()
    sharp = sharpen(depth)
    assert thread_time() - start < 15
    assert (sharp.middles > 0).mean() > 0.9
    assert np.isfinite(sharp.depths).all()
