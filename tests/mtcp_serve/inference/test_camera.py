"""The camera of an image: who says it, what its EXIF means, and that its geometry is that of a pinhole."""

import json
from collections.abc import Callable
from io import BytesIO
from math import hypot, radians, tan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from starlette.testclient import TestClient

from mtcp_serve.inference.camera import Camera, CameraError, CameraRequest, find_camera
from mtcp_serve.inference.images import ImageLimits, decode
from mtcp_serve.inference.sources import to_image
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import GOOD, TASKS, encode, make_bundle, noise

LIMITS = ImageLimits(max_bytes=10**7, max_pixels=10**7, max_side=10**4)

RAW = {"Content-Type": "application/octet-stream"}


def taken(
    entries: dict[int, object], orientation: int = 1, size: tuple[int, int] = (400, 300), format: str = "JPEG"
) -> bytes:
    """A picture of ``size`` as stored, with EXIF ``entries``."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(entries)
    return encode(noise(size[1], size[0]), format, exif=exif)


def focal(data: bytes, enough: int | None = None) -> tuple[float, float] | None:
    return decode(data, LIMITS, enough).info.focal


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_focal_length_on_film_is_of_the_diagonal(format: str, orientation: int) -> None:
    found = focal(taken({ExifTags.Base.FocalLengthIn35mmFilm: 28}, orientation, format=format))
    assert found == pytest.approx((28 * 500 / hypot(36, 24),) * 2)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_pillow_image_has_the_camera_of_its_file(format: str, orientation: int) -> None:
    """Also what was made of it: its colors converted, or turned upright already."""
    entries: dict[int, object] = {
        ExifTags.Base.FocalLength: IFDRational(25),
        ExifTags.Base.FocalPlaneXResolution: IFDRational(254),
        ExifTags.Base.FocalPlaneYResolution: IFDRational(508),
        ExifTags.Base.ExifImageWidth: 400,
        ExifTags.Base.ExifImageHeight: 300,
    }
    data = taken(entries, orientation, format=format)
    upright = (250, 500) if orientation == 1 else (500, 250)
    assert focal(data) == pytest.approx(upright)
    with Image.open(BytesIO(data)) as opened:
        for image in (opened, opened.convert("L"), ImageOps.exif_transpose(opened)):
            assert to_image(image).info.focal == pytest.approx(upright)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_pillow_tiff_has_the_camera_of_its_file(orientation: int) -> None:
    tags = ImageFileDirectory_v2()
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: 28}
    data = encode(noise(300, 400), "TIFF", tiffinfo=tags)
    with Image.open(BytesIO(data)) as opened:
        assert to_image(opened).info.focal == focal(data) == pytest.approx((28 * 500 / hypot(36, 24),) * 2)


def test_reading_a_jpeg_at_an_eighth_changes_nothing() -> None:
    data = taken({ExifTags.Base.FocalLengthIn35mmFilm: 28}, size=(2000, 1500))
    assert focal(data, enough=300) == focal(data) == pytest.approx((28 * 2500 / hypot(36, 24),) * 2)


@pytest.mark.parametrize(("unit", "per_unit"), [(None, 254.0), (2, 254.0), (3, 100.0), (4, 10.0), (5, 0.01)])
def test_the_pixels_a_millimetre_of_the_sensor(unit: int | None, per_unit: float) -> None:
    """25 mm before 10 pixels a millimetre (20 down) of a sensor 800 x 600, of which this is a half."""
    entries: dict[int, object] = {
        ExifTags.Base.FocalLength: IFDRational(25),
        ExifTags.Base.FocalPlaneXResolution: IFDRational(per_unit),
        ExifTags.Base.FocalPlaneYResolution: IFDRational(2 * per_unit),
        ExifTags.Base.ExifImageWidth: 800,
        ExifTags.Base.ExifImageHeight: 600,
    }
    if unit is not None:
        entries[ExifTags.Base.FocalPlaneResolutionUnit] = unit
    assert focal(taken(entries)) == pytest.approx((125, 250))
    assert focal(taken(entries, orientation=8)) == pytest.approx((250, 125))  # a quarter turn swaps them
    turned = focal(taken(entries, size=(300, 400)))  # as a HEIC comes out of its decoder
    assert turned == pytest.approx((250, 125))


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {ExifTags.Base.FocalLengthIn35mmFilm: 0},  # "unknown", as the standard has it
        {ExifTags.Base.FocalLengthIn35mmFilm: 60000},
        {ExifTags.Base.FocalLength: IFDRational(25)},
        {ExifTags.Base.FocalLength: IFDRational(1, 0), ExifTags.Base.FocalPlaneXResolution: IFDRational(1)},
        {ExifTags.Base.FocalLength: "far", ExifTags.Base.FocalPlaneXResolution: IFDRational(1)},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exif_that_says_nothing_sane(entries: dict[int, object]) -> None:
    assert focal(taken(entries)) is None


def test_who_goes_before_whom() -> None:
    request = CameraRequest(focal_px=500)
    known = {"request": request, "exif": (300.0, 310.0), "default_fov_x": 90.0}
    assert find_camera(400, 300, **known) == Camera(400, 300, 500, 500, 199.5, 149.5, "request")  # type: ignore[arg-type]
    known["request"] = CameraRequest()
    assert find_camera(400, 300, **known) == Camera(400, 300, 300, 310, 199.5, 149.5, "exif")  # type: ignore[arg-type]
    for width, height in ((400, 300), (300, 400)):  # the longer side has the field of view
        camera = find_camera(width, height, default_fov_x=90)
        assert camera.fx == camera.fy == pytest.approx(200)
        assert camera.source == "manifest"
    camera = find_camera(400, 300)
    assert camera.fov_x == pytest.approx(60)
    assert camera.source == "assumed"
    intrinsics = find_camera(400, 300, CameraRequest(intrinsics=(10, 20, 30, 40)))
    assert intrinsics == Camera(400, 300, 10, 20, 30, 40, "request")


@pytest.mark.parametrize("kind", [np.float64, np.float32, int, np.asarray])
def test_numbers_of_any_kind_are_kept_as_floats(kind: Callable[[float], Any]) -> None:
    for name in ("fov_x", "focal_px"):
        request = CameraRequest(**{name: kind(70)})
        assert request.query() == {name: "70.0"}
    four: list[Any] = [kind(number) for number in (500, 501, 31, 23)]
    for given in (tuple(four), four, np.array(four), iter(four)):
        request = CameraRequest(intrinsics=given)  # type: ignore[arg-type]
        assert request == CameraRequest(intrinsics=(500, 501, 31, 23))
        assert request.query() == {"intrinsics": "500.0,501.0,31.0,23.0"}
        assert json.loads(json.dumps(request.intrinsics)) == [500, 501, 31, 23]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fov_x": "wide"}, "fov_x is 'wide'; it is a number"),
        ({"focal_px": (500, 500)}, r"focal_px is \(500, 500\); it is a number"),
        ({"intrinsics": (500, 500, 32)}, "give four numbers: fx, fy, cx, cy"),
        ({"intrinsics": np.eye(3)}, "give four numbers"),
        ({"intrinsics": 500}, "give four numbers"),
    ],
)
def test_what_is_no_number_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        CameraRequest(**wrong)


@pytest.mark.parametrize("fov_x", [10.0, 60.0, 120.0])
def test_the_edges_are_seen_at_half_the_field_of_view(fov_x: float) -> None:
    camera = find_camera(64, 48, CameraRequest(fov_x=fov_x))
    assert camera.fov_x == pytest.approx(fov_x)
    points = camera.unproject(np.full((48, 64), 2, np.float32))
    edge = points[0, -1, 0] + 0.5 * (points[0, 1, 0] - points[0, 0, 0])
    assert edge == pytest.approx(2 * tan(radians(fov_x / 2)), rel=1e-5)
    assert (points[..., 2] == -2).all()
    assert points[0, 0, 0] < 0 < points[0, 0, 1]  # the top left pixel is left and up


def test_a_point_comes_back_to_its_pixel_at_every_size() -> None:
    camera = Camera(640, 480, 500, 520, 310, 250, "request")
    u, v, depth = 123.0, 321.0, 3.5
    x, y, z = (u - 310) / 500 * depth, -(v - 250) / 520 * depth, -depth
    points = camera.unproject(np.full((480, 640), depth, np.float32))
    assert points[int(v), int(u)] == pytest.approx((x, y, z), rel=1e-5)
    small = camera.resized(160, 240)
    assert small.resized(640, 480).fx == pytest.approx(500)
    # the same ray in the smaller image: pixel centres at integers, edges at halves
    assert small.fx * x / depth + small.cx == pytest.approx((u + 0.5) / 4 - 0.5)
    assert -small.fy * y / depth + small.cy == pytest.approx((v + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("fov_x", "focal_px", "intrinsics", "reason"),
    [
        (60, 900, None, "give one of them"),
        (180, None, None, "from 0.001 to 179"),
        (5e-324, None, None, "from 0.001 to 179"),  # half of it in radians is 0
        (float("nan"), None, None, "from 0.001 to 179"),
        (None, 0, None, "from 0.001 to"),
        (None, 1e-300, None, "from 0.001 to"),  # 0 in single precision
        (None, float("inf"), None, "from 0.001 to"),
        (None, None, "1,2,3", "four numbers"),
        (None, None, "1,2,3,x", "four numbers"),
        (None, None, "-1,2,3,4", "from 0.001 to"),
        (None, None, "1,2,nan,4", "that far from 0"),
        (None, None, "1,2,3,-1e300", "that far from 0"),
    ],
)
def test_a_camera_that_cannot_be(
    fov_x: float | None, focal_px: float | None, intrinsics: str | None, reason: str
) -> None:
    with pytest.raises(CameraError, match=reason):
        CameraRequest.parse(fov_x, focal_px, intrinsics)


def camera_of(client: TestClient, data: bytes, query: str = "") -> dict[str, object]:
    response = client.post(f"/predict?tasks=depth&{query}", content=data, headers=RAW)
    assert response.status_code == 200, response.text
    found: dict[str, object] = response.json()["image"]["camera"]
    return found


def test_the_answer_says_the_camera(client: TestClient) -> None:
    data = taken({ExifTags.Base.FocalLengthIn35mmFilm: 28}, orientation=6)  # 300 x 400 upright
    assert camera_of(client, data) == {
        "fx": 323.575, "fy": 323.575, "cx": 149.5, "cy": 199.5, "source": "exif",
    }  # fmt: skip
    assert camera_of(client, data, "fov_x=90")["fx"] == 150
    assert camera_of(client, data, "focal_px=77")["fy"] == 77
    assert camera_of(client, data, "intrinsics=1,2,3,4") == {
        "fx": 1, "fy": 2, "cx": 3, "cy": 4, "source": "request",
    }  # fmt: skip


def test_the_manifest_has_a_default(tmp_path: Path) -> None:
    tasks = tuple(
        task.model_copy(update={"assumed_fov": 90.0}) if task.kind == "depth" else task for task in TASKS
    )
    bundle = make_bundle(tmp_path / "wide", tasks=tasks)
    with TestClient(create_app(Settings(bundle=(bundle,)))) as client:
        assert camera_of(client, GOOD) == {"fx": 16, "fy": 16, "cx": 15.5, "cy": 11.5, "source": "manifest"}


@pytest.mark.parametrize(
    "query",
    [
        *("fov_x=180", "fov_x=0", "fov_x=5e-324", "fov_x=nan", "focal_px=-1", "focal_px=1e-300"),
        *("focal_px=inf", "intrinsics=1,2", "intrinsics=1,1,1e300,0", "fov_x=60&focal_px=9"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    check_error(client.post(f"/predict?{query}", content=GOOD, headers=RAW), 422, "invalid_parameter")


@pytest.mark.parametrize(
    "query", ["fov_x=0.001", "fov_x=179", "focal_px=0.001", "focal_px=1e9", "intrinsics=0.001,1e9,-1e9,1e9"]
)
@pytest.mark.parametrize("format", ["ply", "glb"])
def test_at_the_limits_of_a_camera_all_is_finite(client: TestClient, format: str, query: str) -> None:
    camera = camera_of(client, GOOD, query)
    assert 0 not in (camera["fx"], camera["fy"])
    found = client.post(f"/predict?format={format}&tasks=depth&{query}", content=GOOD, headers=RAW)
    assert found.status_code == 200
    points: Any = trimesh.load(
        BytesIO(found.content), file_type=format, force="mesh" if format == "glb" else None
    )
    assert len(points.vertices) > 0
    assert np.isfinite(points.vertices).all()
