"""Point clouds and meshes: a known plane is flat and where it is, whoever reads the file."""

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image
from plyfile import PlyData
from starlette.testclient import TestClient

import mtcp_serve
from mtcp_serve.bundle.manifest import FileEntry, InputSpec, Manifest
from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.camera import Camera, CameraRequest
from mtcp_serve.inference.images import DecodedImage, ImageInfo, decode
from mtcp_serve.inference.pipeline import DenseMap, DenseMaps, Size
from mtcp_serve.inference.timings import Timings
from mtcp_serve.kinds import DepthTask, NormalsTask, TaskSpec
from mtcp_serve.outputs.depth_edges import sharpen
from mtcp_serve.outputs.formats import FORMATS, Options
from mtcp_serve.outputs.formats.ply import to_ply
from mtcp_serve.outputs.mesh import build_mesh
from mtcp_serve.outputs.points import Relief, estimate_normals, point_cloud
from mtcp_serve.prediction import Prediction
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.browser import PHOTO
from tests.mtcp_serve.confident import make_confident_bundle
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, encode, noise

RAW = {"Content-Type": "application/octet-stream"}
DEPTH = DepthTask(name="depth", range=(0.1, 100.0))
NORMALS = NormalsTask(name="normals", frame="x right, y up, z towards the camera")
SIZE = (48, 64)
CAMERA = Camera.of_fov_x(64, 48, 70, "request")
POOL = ThreadPoolExecutor(1)
END = b"end_header\n"


def plane(normal: tuple[float, float, float], distance: float, camera: Camera = CAMERA) -> Any:
    """Depths ``[height, width]`` of the plane ``normal . p = -distance``, in the frame of the points."""
    rays = camera.unproject(np.ones((camera.height, camera.width), np.float32))
    return (-distance / (rays @ np.array(normal))).astype(np.float32)


def slanted(degrees: float) -> tuple[float, float, float]:
    """The normal of a plane that faces the camera but for a turn about the upright axis."""
    return float(np.sin(np.radians(degrees))), 0.0, float(np.cos(np.radians(degrees)))


def predicted(
    depth: NDArray[np.float32],
    normals: NDArray[np.float32] | None = None,
    size: tuple[int, int] | None = None,
    photo: NDArray[np.uint8] | None = None,
) -> DenseMaps:
    """A prediction by hand, of a camera that sees 70 degrees across."""
    height, width = size or depth.shape
    tasks: list[TaskSpec] = [DEPTH]
    maps = [DenseMap("tiny", DEPTH, depth, height, width)]
    if normals is not None:
        tasks.append(NORMALS)
        maps.append(DenseMap("tiny", NORMALS, normals, height, width))
    manifest = Manifest(
        name="tiny",
        version="7",
        input=InputSpec(height=depth.shape[0], width=depth.shape[1]),
        tasks=tuple(tasks),
        files={"model.onnx": FileEntry(sha256="0" * 64)},
    )
    info = ImageInfo(width, height, "PNG", "RGB", exif_rotated=False, animated=False)
    image = Image.fromarray(noise(height, width) if photo is None else photo)
    return DenseMaps(
        (manifest,), info, tuple(maps), Timings(), CameraRequest(fov_x=70), decoded=DecodedImage(image, info)
    )


def written(format: str, prediction: DenseMaps, **options: Any) -> bytes:
    writer = FORMATS[format](POOL, Options(**options))
    return writer.finish(writer.add(prediction))


def read_ply(data: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Positions, normals and colours, as plyfile reads them."""
    vertices = PlyData.read(BytesIO(data))["vertex"]
    groups = (("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue"))
    positions, normals, colors = (np.stack([vertices[name] for name in group], axis=-1) for group in groups)
    return positions, normals, colors


def read_glb(data: bytes) -> trimesh.Trimesh:
    scene = trimesh.load_scene(BytesIO(data), file_type="glb")
    (mesh,) = scene.geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


@pytest.mark.parametrize("degrees", [0, 25, 45])
def test_a_plane_is_flat_and_at_its_distance(degrees: float) -> None:
    normal, distance = slanted(degrees), 3.0
    data = written("ply", predicted(plane(normal, distance)))
    positions, normals, _ = read_ply(data)
    assert len(positions) == 64 * 48
    assert np.abs(positions @ np.array(normal) + distance).max() < 2e-5 * np.abs(positions).max()
    assert np.abs(normals - normal).max() < 2e-3
    mesh = read_glb(written("glb", predicted(plane(normal, distance))))
    assert np.abs(mesh.vertices @ np.array(normal) + distance).max() < 2e-5 * np.abs(mesh.vertices).max()
    assert (mesh.face_normals @ np.array(normal)).min() > 0.999  # the front is seen


def test_a_wall_has_its_size() -> None:
    """70 degrees at 3 m: 4.2 m from edge to edge, of which the outer pixels' middles leave half a pixel."""
    positions, _, colors = read_ply(written("ply", predicted(plane((0, 0, 1), 3.0), photo=noise(*SIZE))))
    across = 2 * 3 * np.tan(np.radians(35))
    assert np.ptp(positions[:, 0]) == pytest.approx(across * 63 / 64, rel=1e-5)
    assert np.ptp(positions[:, 1]) == pytest.approx(across * 47 / 64, rel=1e-5)
    assert np.array_equal(colors, noise(*SIZE).reshape(-1, 3))
    top_left = positions[0]
    assert top_left[0] < 0 < top_left[1]  # x right, y up
    assert (positions[:, 2] == -3).all()  # what the camera sees lies at negative z


def test_the_normals_are_those_of_the_map_where_there_is_one() -> None:
    directions = np.random.default_rng(0).normal(size=(*SIZE, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    _, normals, _ = read_ply(written("ply", predicted(plane((0, 0, 1), 2.0), directions)))
    assert np.array_equal(normals, directions.reshape(-1, 3))


def test_points_at_a_jump_are_on_either_surface() -> None:
    depth = np.full(SIZE, 2, np.float32)
    depth[:, 32:] = 8
    depth[40, 10] = 0  # invalid
    positions, _, _ = read_ply(written("ply", predicted(depth)))
    assert len(positions) == 48 * 64 - 1
    # enlarged, the jump is a ramp of a few pixels: none of its in-between depths comes through
    wide, _, _ = read_ply(written("ply", predicted(depth, size=(240, 320))))
    assert set(np.unique(wide[:, 2])) == {-2.0, -8.0}
    hanging, _, _ = read_ply(written("ply", predicted(depth, size=(240, 320)), edges=True))
    between = (hanging[:, 2] < -2.5) & (hanging[:, 2] > -7.5)
    assert 240 * 2 <= between.sum() < 240 * 6
    assert len(hanging) == len(wide)


def test_a_ramp_between_two_surfaces_goes_to_the_nearer() -> None:
    depth = np.full(SIZE, 2, np.float32)
    depth[:, 30:34] = np.geomspace(2, 8, 6, dtype=np.float32)[1:-1]
    depth[:, 34:] = 8
    positions, _, _ = read_ply(written("ply", predicted(depth)))
    assert len(positions) == 48 * 64
    assert set(np.unique(positions[:, 2])) == {-2.0, -8.0}
    near = (positions[:, 2] == -2).sum() / 48
    assert near == 32  # the border is in the middle of the ramp


@pytest.mark.parametrize("step", [1, 2, 5])
def test_every_so_many_pixels(step: int) -> None:
    normal = slanted(30)
    positions, _, _ = read_ply(written("ply", predicted(plane(normal, 3.0)), step=step))
    assert len(positions) == round(48 / step) * round(64 / step)
    inner = np.abs(positions[:, 0]) < 1.5  # the rim of a shrunk map averages fewer pixels
    assert np.abs(positions[inner] @ np.array(normal) + 3).max() < 0.02


def test_as_many_points_as_are_usual_and_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = predicted(plane((0, 0, 1), 3.0), size=(480, 640))
    assert len(point_cloud(Relief.of(wall)).positions) == 480 * 640
    monkeypatch.setattr("mtcp_serve.outputs.points.USUAL_POINTS", 10_000)
    assert len(point_cloud(Relief.of(wall)).positions) == 80 * 107  # step 6
    monkeypatch.setattr("mtcp_serve.outputs.points.MOST_POINTS", 20_000)
    with pytest.raises(
        InvalidParameterError, match="step=2 gives 76800 points, the limit is 20000"
    ) as caught:
        point_cloud(Relief.of(wall), step=2)
    assert "step=4 fits" in str(caught.value.body())
    assert len(point_cloud(Relief.of(wall), step=4).positions) == 120 * 160


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_that_leads_nowhere_is_refused(step: int) -> None:
    with pytest.raises(InvalidParameterError, match=f"step is {step}, it must be at least 1"):
        point_cloud(Relief.of(predicted(plane((0.0, 0.0, 1.0), 3.0))), step)


def test_the_surface_is_torn_at_a_jump_and_keeps_its_texture() -> None:
    depth = np.full(SIZE, 2, np.float32)
    depth[:, 32:] = 8
    photo = np.zeros((*SIZE, 3), np.uint8)
    photo[:, 32:] = 255
    data = written("glb", predicted(depth, photo=photo))
    mesh = read_glb(data)
    assert len(mesh.faces) == 2 * 47 * (31 + 31)  # all but those across it
    spans = np.ptp(mesh.vertices[mesh.faces][:, :, 2], axis=1)
    assert spans.max() == 0  # no triangle bridges the jump
    texture = np.asarray(mesh.visual.material.baseColorTexture.convert("L")).astype(int)
    places = np.asarray(mesh.visual.uv)  # trimesh turns v over
    rows, columns = ((1 - places[:, 1]) * 48).astype(int), (places[:, 0] * 64).astype(int)
    far = mesh.vertices[:, 2] < -5
    assert texture[rows[far], columns[far]].min() > 200
    assert places[~far, 0].max() == 0.5  # the rim of the nearer surface is on the border of both
    inner = ~far & (places[:, 0] < 0.5)
    assert texture[rows[inner], columns[inner]].max() < 55
    length = int.from_bytes(data[12:16], "little")
    document = json.loads(data[20 : 20 + length])
    assert document["scenes"][0]["extras"]["unit"] == "m"
    assert document["scenes"][0]["extras"]["camera"]["source"] == "request"
    accessor = document["accessors"][0]
    assert accessor["min"][2] == -8
    assert accessor["max"][2] == -2


def test_where_there_is_no_depth_there_is_an_empty_file() -> None:
    nothing = predicted(np.zeros(SIZE, np.float32))
    assert len(read_ply(written("ply", nothing))[0]) == 0
    assert len(trimesh.load_scene(BytesIO(written("glb", nothing)), file_type="glb").geometry) == 0


def test_triangles_use_every_vertex_and_no_other() -> None:
    depth = np.full(SIZE, 2, np.float32)
    depth[10:20, 10:20] = 0
    mesh = build_mesh(sharpen(depth), depth, CAMERA)
    assert set(mesh.triangles.ravel()) == set(range(len(mesh.positions)))
    assert len(mesh.positions) == 48 * 64 - 100
    assert (estimate_normals(np.zeros((1, 5, 3), np.float32)) == (0, 0, 1)).all()


def post(client: TestClient, query: str, data: bytes = GOOD) -> Any:
    return client.post(f"/predict?{query}", content=data, headers=RAW)


def test_the_server_gives_both(client: TestClient) -> None:
    """The depth of the tiny bundle is the mean of the channels by 25.5."""
    response = post(client, "format=ply&fov_x=90")
    assert response.headers["content-type"] == "application/x-ply"
    pixels = noise(HEIGHT, WIDTH)
    positions, _, colors = read_ply(response.content)
    every, _, _ = read_ply(post(client, "format=ply&fov_x=90&edges=true").content)
    assert len(positions) == len(every) == HEIGHT * WIDTH
    depth = pixels.mean(axis=-1) / 25.5
    across = (np.arange(WIDTH) - (WIDTH - 1) / 2) / (WIDTH / 2)
    assert every[:, 2] == pytest.approx(-depth.ravel(), rel=1e-5)
    assert every[:, 0] == pytest.approx((across * depth).ravel(), rel=1e-4, abs=1e-6)
    assert {tuple(color) for color in colors.tolist()} <= {tuple(c) for c in pixels.reshape(-1, 3).tolist()}
    by_header = client.post("/predict", content=GOOD, headers={**RAW, "Accept": "model/gltf-binary"})
    assert by_header.headers["content-type"] == "model/gltf-binary"
    flat = encode(np.full((40, 60, 3), 100, np.uint8))
    assert read_glb(post(client, "format=glb", flat).content).vertices[:, 2] == pytest.approx(-100 / 25.5)


def test_points_of_a_large_jpeg_have_the_depths_of_the_map(client: TestClient) -> None:
    """They need the image in more pixels than the network, which must not change what that is given."""
    data = encode(noise(200, 300), "JPEG")
    with np.load(BytesIO(post(client, "format=npz&tasks=depth", data).content)) as arrays:
        depth = arrays["depth"]
    positions, _, colors = read_ply(post(client, "format=ply&edges=true", data).content)
    assert np.array_equal(-positions[:, 2], depth.ravel())
    assert np.array_equal(colors, np.asarray(decode(data).image).reshape(-1, 3))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("format=ply&tasks=semseg", "needs a depth map"),
        ("format=glb&tasks=normals,semseg", "needs a depth map"),
        ("format=json&step=2", "format json has no step"),
        ("format=glb&edges=true", "format glb has no edges"),
        ("format=ply&visualize=true", "format ply has no visualize"),
        ("format=ply&step=0", "step"),
    ],
)
def test_what_a_format_cannot_do_is_refused(client: TestClient, query: str, reason: str) -> None:
    response = post(client, query)
    check_error(response, 422, "invalid_parameter")
    assert reason in response.json()["error"]["message"]


def test_a_program_has_exactly_the_points_of_the_server(tmp_path: Path) -> None:
    """Of an image with depth edges that is no multiple of the network's size."""
    bundle = make_confident_bundle(tmp_path / "tiny")
    pixels = np.full((70, 110, 3), 60, np.uint8) + noise(70, 110) // 16
    pixels[15:50, 20:80] += 150
    data = encode(pixels)
    moved = 0
    with (
        mtcp_serve.load(bundle, threads=1) as model,
        TestClient(create_app(Settings(bundle=(bundle,), intra_op_threads=1))) as client,
    ):
        for size, step, edges, least in product(get_args(Size), (1, 2), (False, True), (None, 0.3)):
            query = f"format=ply&confidence=true&size={size}&step={step}&edges={edges}"
            response = post(client, query + ("" if least is None else f"&min_confidence={least}"), data)
            assert response.status_code == 200, response.text
            maps = model.predict(data, size=size, confidence=True)
            cloud = maps.points(step, edges, least)
            assert to_ply(cloud).partition(END)[2] == response.content.partition(END)[2]
            if size == "input" and not edges:
                resized = Prediction(dict(maps), maps.metadata, lambda: decode(data))
                moved += (resized.points(step).positions != maps.points(step).positions).sum()
    assert moved > 0  # the resized map has not all that the edges are found in


def test_a_program_has_the_same_points_and_the_same_cut_out() -> None:
    with mtcp_serve.load() as model:
        found = model.predict(PHOTO)
        cloud, cut = found.points(step=2), found.cutout()
        white = found.cutout("#ffffff")
        with pytest.raises(KeyError, match="kind depth; there is saliency"):
            model.predict(PHOTO, ["saliency"]).points()
    assert len(cloud.positions) == 256 * 256
    depth = -cloud.positions[:, 2].reshape(256, 256)
    assert np.abs(depth - found["depth"][::2, ::2]).mean() < 0.05
    camera = found.metadata["image"]["camera"]
    across = (np.arange(256) * 2 + 0.5 - camera["cx"]) / camera["fx"]
    assert np.abs(cloud.positions[:, 0].reshape(256, 256) - across * depth).max() < 1e-3
    assert cut.mode == "RGBA"
    assert np.asarray(cut)[..., 3].mean() > 60
    assert np.asarray(white)[0, -1].tolist() == [255, 255, 255]
    unknown = Prediction(dict(found), found.metadata)
    with pytest.raises(ValueError, match="does not know its image"):
        unknown.points()
