"""``confidence=true``: every format carries exactly what the tiny graph says, and nothing without it."""

import base64
import json
from collections.abc import Iterator
from email import message_from_bytes
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import OpenEXR
import pytest
import trimesh
from PIL import Image
from plyfile import PlyData
from pxr import Usd, UsdGeom
from starlette.testclient import TestClient

from mtcp_serve.outputs.formats import BATCH_FORMATS, FORMATS
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.confident import OWN_WORDS, expected_confidences, make_confident_bundle
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.server.test_predict import arrays
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, encode, noise

WORDS = {"semseg": "the label is the true one", "depth": OWN_WORDS}
WANTED = {name: values[0] for name, values in expected_confidences(noise(HEIGHT, WIDTH)[None]).items()}
"""At the size of the graph's outputs."""


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of the tiny bundle that says how sure it is of ``semseg`` and of ``depth``."""
    bundle = make_confident_bundle(tmp_path_factory.mktemp("bundles") / "confident")
    with TestClient(create_app(Settings(bundle=(bundle,), intra_op_threads=1))) as client:
        yield client


def enlarged(values: Any) -> Any:
    """As large as the maps, by Pillow."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


FULL = {name: enlarged(values) for name, values in WANTED.items()}


def ask(client: TestClient, data: bytes = GOOD, **query: str) -> Any:
    return client.post(
        "/predict", params=query, content=data, headers={"Content-Type": "application/octet-stream"}
    )


def pixels(png: bytes | str) -> Any:
    """Of a PNG file, which may be base64."""
    data = base64.b64decode(png) if isinstance(png, str) else png
    with Image.open(BytesIO(data)) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_json_has_a_picture_a_mean_and_the_criterion(sure: TestClient) -> None:
    body = ask(sure, confidence="true").json()
    for name, want in WANTED.items():
        about = body["maps"][name]["confidence"]
        assert about["criterion"] == WORDS[name]
        assert about["mean"] == pytest.approx(want.mean(), abs=1e-4)
        assert about["resampled"] == ("bilinear" if name == "semseg" else "none")
        assert np.abs(pixels(about["png"]) / 255 - FULL[name]).max() <= 0.5 / 255 + 1e-6
    assert body["without_confidence"] == ["normals", "saliency", "parsing"]
    assert all("confidence" not in body["maps"][name] for name in body["without_confidence"])


def test_without_the_parameter_there_is_none_and_none_is_computed(
    sure: TestClient, client: TestClient
) -> None:
    asked, plain = ask(sure).json(), ask(client).json()
    del asked["timings_ms"], plain["timings_ms"]
    assert asked == plain


def test_what_is_not_wanted_is_not_asked_of_the_engine(
    sure: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    (batcher,) = sure.app.state.service.models  # type: ignore[attr-defined]
    infer = batcher.engine.infer

    async def listen(images: Any, tasks: Any) -> Any:
        asked.append([task.name for task in tasks])
        return await infer(images, tasks)

    monkeypatch.setattr(batcher.engine, "infer", listen)
    ask(sure, tasks="depth")
    ask(sure, tasks="depth,normals", confidence="true", format="npz")
    ask(sure, format="ply", min_confidence="0.5")
    assert asked == [
        ["depth"],
        ["depth", "normals", "depth_confidence"],
        ["depth", "normals", "depth_confidence"],
    ]


def test_npz_has_float32_members(sure: TestClient) -> None:
    found = arrays(ask(sure, format="npz", confidence="true"))
    for name, want in FULL.items():
        member = found[f"{name}_confidence"]
        assert member.dtype == np.float32
        assert np.abs(member - want).max() < 1e-5
    assert "normals_confidence" not in found
    assert json.loads(found["metadata"].item())["maps"]["depth"]["confidence"]["criterion"] == OWN_WORDS
    large = arrays(ask(sure, encode(noise(60, 80)), format="npz", confidence="true", tasks="semseg"))
    assert large["semseg_confidence"].shape == large["semseg"].shape == (60, 80)


def test_zip_and_multipart_have_png_files(sure: TestClient) -> None:
    with ZipFile(BytesIO(ask(sure, format="zip", confidence="true").content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    response = ask(sure, format="multipart", confidence="true")
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message: Any = message_from_bytes(head + response.content)
    parts: Any = {part.get_filename(): part.get_payload(decode=True) for part in
             message.get_payload()}  # fmt: skip
    for found in (files, parts):
        assert {name for name in found if "confidence" in str(name)} == {
            "semseg_confidence.png", "depth_confidence.png",
        }  # fmt: skip
        for name, want in FULL.items():
            assert np.abs(pixels(found[f"{name}_confidence.png"]) / 255 - want).max() <= 0.5 / 255 + 1e-6
    with Image.open(BytesIO(files["semseg_confidence.png"])) as image:
        about = json.loads(image.text["mtcp"])  # type: ignore[attr-defined]
    assert (about["kind"], about["criterion"]) == ("probability", WORDS["semseg"])


def test_exr_has_float_channels(sure: TestClient, tmp_path: Path) -> None:
    path = tmp_path / "maps.exr"
    path.write_bytes(ask(sure, format="exr", confidence="true").content)
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = {name: channel.pixels for name, channel in file.channels().items()}
    for name, want in FULL.items():
        assert np.abs(channels[f"{name}_confidence.Y"] - want).max() < 1e-5
    assert "normals_confidence.Y" not in channels


def test_points_have_it_and_unsure_ones_can_be_left_out(sure: TestClient) -> None:
    depth = arrays(ask(sure, format="npz", tasks="depth"))["depth"]
    whole = PlyData.read(BytesIO(ask(sure, format="ply", confidence="true", edges="true").content))["vertex"]
    assert np.allclose(whole["confidence"], WANTED["depth"].ravel(), atol=1e-6)
    assert "confidence" not in PlyData.read(BytesIO(ask(sure, format="ply").content))["vertex"]
    part = ask(sure, format="ply", min_confidence="0.7", edges="true").content
    kept = PlyData.read(BytesIO(part))["vertex"]
    wanted = WANTED["depth"] >= 0.7
    assert 0 < wanted.sum() < wanted.size
    assert np.allclose(-kept["z"], depth[wanted], atol=1e-4)
    assert np.allclose(kept["confidence"], WANTED["depth"][wanted], atol=1e-6)


def test_the_surface_has_it_and_holes_where_it_is_low(sure: TestClient, tmp_path: Path) -> None:
    columns = np.arange(WIDTH)
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    image[..., 2] = np.where(columns < WIDTH // 2, 250, 100)  # blue: how sure it is of the depth
    image[..., 0] = 240 - image[..., 2] // 2  # a plane, or near enough
    data = encode(image)
    queries: tuple[dict[str, str], ...] = ({}, {"confidence": "true"}, {"min_confidence": "0.9"})
    meshes: list[Any] = [
        trimesh.load(BytesIO(ask(sure, data, format="glb", **query).content), file_type="glb", force="mesh")
        for query in queries
    ]
    plain, whole, torn = meshes
    assert "_CONFIDENCE" not in plain.vertex_attributes
    assert len(whole.faces) == len(plain.faces)
    seen = {round(float(value), 3) for value in whole.vertex_attributes["_CONFIDENCE"].ravel()}
    assert seen == {round(250 / 255, 3), round(100 / 255, 3)}
    assert torn.vertex_attributes["_CONFIDENCE"].min() == pytest.approx(250 / 255)
    assert len(torn.faces) == 2 * (HEIGHT - 1) * (WIDTH // 2 - 1)
    path = tmp_path / "scene.usdz"
    path.write_bytes(ask(sure, data, format="usdz", min_confidence="0.9").content)
    stage = Usd.Stage.Open(str(path))
    surface = UsdGeom.Mesh(stage.GetPrimAtPath("/Scene/Depth"))
    assert len(surface.GetFaceVertexCountsAttr().Get()) == len(torn.faces)
    found = UsdGeom.PrimvarsAPI(surface).GetPrimvar("confidence").Get()
    assert np.array_equal(found, torn.vertex_attributes["_CONFIDENCE"].ravel())


def test_a_batch_has_it_for_each_image(sure: TestClient) -> None:
    images = [noise(HEIGHT, WIDTH, seed) for seed in range(2)]
    wanted = expected_confidences(np.stack(images))["depth"]
    files = [("image", ("a.png", encode(image), "image/png")) for image in images]
    response = sure.post(
        "/predict/batch", params={"format": "npz", "tasks": "depth"}, files=files, data={"confidence": "true"}
    )
    found = arrays(response)
    for index, want in enumerate(wanted):
        assert np.abs(found[f"{index}/depth_confidence"] - want).max() < 1e-6


def test_a_form_field_asks_for_it(sure: TestClient) -> None:
    files = {"image": ("a.png", GOOD, "image/png")}
    body = sure.post("/predict", files=files, data={"confidence": "true", "tasks": "depth"}).json()
    assert "png" in body["maps"]["depth"]["confidence"]
    assert "without_confidence" not in body


def test_a_stream_has_it(sure: TestClient) -> None:
    with sure.websocket_connect("/stream?confidence=true&tasks=depth") as socket:
        socket.send_bytes(GOOD)
        with np.load(BytesIO(socket.receive_bytes())) as found:
            assert np.abs(found["depth_confidence"] - WANTED["depth"]).max() < 1e-6


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"tasks": "normals,saliency"}, "there is one for semseg, depth"),
        ({"tasks": "depth", "format": "png"}, "format png has no confidence"),
        ({"format": "cutout"}, "format cutout has no confidence"),
        ({"format": "zip", "min_confidence": "0.5"}, "format zip has no min_confidence"),
        ({"format": "ply", "min_confidence": "1.5"}, "min_confidence"),
        ({"confidence": "maybe"}, "confidence"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(sure: TestClient, query: Any, words: str) -> None:
    response = ask(sure, **{"confidence": "true", **query})
    check_error(response, 422, "invalid_parameter")
    error = response.json()["error"]
    assert words in f"{error['message']} {error['hint']}"


def test_a_bundle_without_any_says_so(client: TestClient) -> None:
    response = ask(client, confidence="true")
    check_error(response, 422, "invalid_parameter")
    assert "tiny does not say how sure it is" in response.json()["error"]["message"]
    queries: Any = ({"format": "ply", "min_confidence": "0.5"}, {"format": "glb", "confidence": "true"})
    for query in queries:
        check_error(ask(client, **query), 422, "invalid_parameter")


def test_every_format_carries_or_refuses_it(sure: TestClient) -> None:
    refusing = {name for name in FORMATS if ask(sure, format=name, confidence="true").status_code == 422}
    assert refusing == {"png", "cutout"}
    assert refusing.isdisjoint(BATCH_FORMATS)
