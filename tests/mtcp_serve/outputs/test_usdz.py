"""USDZ: what USD itself reads and checks, against the mesh of format glb."""

import tempfile
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pxr import Usd, UsdGeom, UsdShade, UsdValidation
from starlette.testclient import TestClient

from mtcp_serve.outputs.formats import base, usdz
from tests.mtcp_serve.outputs.test_points import CAMERA, SIZE, plane, predicted, read_glb, slanted, written
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import GOOD
from tests.needs import needs_linux

RAW = {"Content-Type": "application/octet-stream"}
HALVES = np.full(SIZE, 2, np.float32)
HALVES[:, 32:] = 8


def opened(data: bytes, folder: Path) -> Usd.Stage:
    path = folder / "scene.usdz"
    path.write_bytes(data)
    return Usd.Stage.Open(str(path))


def surface(stage: Usd.Stage) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Points and triangles of the mesh, and the places of its texture, from the lower left."""
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Scene/Depth"))
    assert set(mesh.GetFaceVertexCountsAttr().Get()) == {3}
    return (
        np.asarray(mesh.GetPointsAttr().Get()),
        np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3),
        np.asarray(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get()),
    )


def test_it_is_the_mesh_of_glb(tmp_path: Path) -> None:
    made = predicted(plane(slanted(25), 3.0))
    points, triangles, places = surface(opened(written("usdz", made), tmp_path))
    glb = read_glb(written("glb", made))
    assert np.array_equal(points, glb.vertices.astype(np.float32))
    assert np.array_equal(triangles, glb.faces)
    assert np.allclose(places, glb.visual.uv, atol=1e-6)


def test_usd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    stage = opened(written("usdz", predicted(HALVES)), tmp_path)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert any("Usdz" in validator.GetMetadata().name for validator in validators)
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [error.GetMessage() for error in errors] == []


def test_the_package_is_as_apple_wants_it(tmp_path: Path) -> None:
    """Stored, each file at a multiple of 64 bytes, a binary stage first."""
    data = written("usdz", predicted(HALVES))
    with ZipFile(BytesIO(data)) as package:
        assert package.namelist() == ["scene.usdc", "image.jpg"]
        for file in package.infolist():
            assert file.compress_type == ZIP_STORED
            start = data.index(package.read(file.filename))
            assert start % 64 == 0
        picture = Image.open(BytesIO(package.read("image.jpg")))
    assert (picture.format, picture.size) == ("JPEG", (64, 48))


def test_it_stands_on_the_ground_before_the_viewer_in_metres(tmp_path: Path) -> None:
    stage = opened(written("usdz", predicted(HALVES)), tmp_path)
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert stage.GetDefaultPrim().GetPath() == "/Scene"
    points, _, _ = surface(stage)
    cache = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.default_])
    found = cache.ComputeWorldBound(stage.GetPrimAtPath("/Scene/Depth")).ComputeAlignedRange()
    size = np.ptp(points, axis=0)
    assert np.allclose(found.GetMin(), [-size[0] / 2, 0, -size[2]], atol=1e-5)
    assert np.allclose(found.GetMax(), [size[0] / 2, size[1], 0], atol=1e-5)
    facts = stage.GetRootLayer().customLayerData
    assert facts["unit"] == "m"
    assert facts["camera"]["source"] == "request"


def test_the_image_shines_on_it(tmp_path: Path) -> None:
    photo = np.zeros((*SIZE, 3), np.uint8)
    photo[:10] = 255  # the upper rows
    data = written("usdz", predicted(HALVES, photo=photo))
    stage = opened(data, tmp_path)
    mesh = stage.GetPrimAtPath("/Scene/Depth")
    material, _ = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()
    shader, _, _ = material.ComputeSurfaceSource()
    (source,), _ = shader.GetInput("emissiveColor").GetConnectedSources()
    texture = UsdShade.Shader(source.source.GetPrim())
    with ZipFile(BytesIO(data)) as package, package.open(texture.GetInput("file").Get().path) as file:
        pixels = np.asarray(Image.open(file).convert("L")).astype(int)
    points, _, places = surface(stage)
    rows, columns = ((1 - places[:, 1]) * 48).astype(int), (places[:, 0] * 64).astype(int).clip(0, 63)
    seen_at = (
        CAMERA.cy + CAMERA.fy * points[:, 1] / points[:, 2]
    )  # the row of the image that a point is seen in
    assert pixels[rows, columns][seen_at < 8].min() > 200
    assert pixels[rows, columns][seen_at > 12].max() < 55


def test_where_there_is_no_depth_there_is_no_mesh(tmp_path: Path) -> None:
    stage = opened(written("usdz", predicted(np.zeros(SIZE, np.float32))), tmp_path)
    assert stage.GetDefaultPrim().GetPath() == "/Scene"
    assert not stage.GetPrimAtPath("/Scene/Depth")


def test_the_server_gives_it(client: TestClient, tmp_path: Path) -> None:
    for query, headers in (("?format=usdz", RAW), ("", {**RAW, "Accept": "model/vnd.usdz+zip"})):
        response = client.post(f"/predict{query}", content=GOOD, headers=headers)
        assert response.headers["content-type"] == "model/vnd.usdz+zip"
        assert len(surface(opened(response.content, tmp_path))[0]) > 0


@needs_linux
def test_it_needs_no_folder_for_temporary_files(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(usdz, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    before = set(Path("/dev/shm").iterdir())
    response = client.post("/predict?format=usdz", content=GOOD, headers=RAW)
    assert len(surface(opened(response.content, tmp_path))[0]) > 0
    assert not [path for path in set(Path("/dev/shm").iterdir()) - before if (path / "scene.usdc").exists()]


def test_without_the_extra_it_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    response = client.post("/predict?format=usdz", content=GOOD, headers=RAW)
    check_error(response, 422, "invalid_parameter")
    assert "mtcp-serve[usd]" in response.json()["error"]["hint"]
