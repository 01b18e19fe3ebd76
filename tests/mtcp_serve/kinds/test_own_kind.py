"""A kind of task that is nobody's business but its file's: albedo, three channels between 0 and 1."""

import json
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.cli import cli
from mtcp_serve.clients._responses import read_prediction
from mtcp_serve.kinds import KINDS
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.kinds.albedo import AlbedoTask
from tests.mtcp_serve.support import HEIGHT, WIDTH, encode, make_bundle, noise

IMAGE = noise(HEIGHT, WIDTH)
GRAPH = f"""
<ir_version: 10, opset_import: ["": 18]>
albedo (uint8[batch, {HEIGHT}, {WIDTH}, 3] image) => (float[batch, {HEIGHT}, {WIDTH}, 3] albedo)
<float whole = {{255}}>
{{
    pixels = Cast <to = 1> (image)
    albedo = Div (pixels, whole)
}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(KINDS, "albedo", AlbedoTask)
    return make_bundle(tmp_path / "albedo", GRAPH, (AlbedoTask(name="albedo", light="D65"),))


@pytest.fixture
def server(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(bundle=(folder,), intra_op_threads=1))) as client:
        yield client


def post(server: TestClient, query: str, image: NDArray[np.uint8] = IMAGE) -> httpx.Response:
    answer = server.post(f"/predict?{query}", content=encode(image), headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    return httpx.Response(
        200,
        headers=dict(answer.headers),
        content=answer.content,
        request=httpx.Request("POST", "http://here"),
    )


def test_the_manifest_is_read_back(folder: Path) -> None:
    (task,) = Bundle.open(folder).verify().manifest.tasks
    assert task == AlbedoTask(name="albedo", light="D65")


def test_an_unknown_kind_is_refused_with_those_there_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(KINDS, "albedo")
    with pytest.raises(Exception, match="kind is 'albedo', it must be one of labels, depth"):
        Bundle.open(folder)


def test_every_format_has_it(server: TestClient) -> None:
    arrays = np.load(BytesIO(post(server, "format=npz&visualize=true").content))
    np.testing.assert_allclose(arrays["albedo"], IMAGE / 255, rtol=1e-6)
    assert np.array_equal(arrays["albedo.visualization"], IMAGE)
    about = post(server, "format=json").json()["maps"]["albedo"]
    assert (about["kind"], about["light"], about["resampled"]) == ("albedo", "D65", "none")
    assert np.array_equal(np.asarray(Image.open(BytesIO(b64decode(about["png"])))), IMAGE)
    with zipfile.ZipFile(BytesIO(post(server, "format=zip").content)) as archive:
        assert sorted(archive.namelist()) == ["albedo.png", "metadata.json"]
    picture = Image.open(BytesIO(post(server, "format=png&tasks=albedo").content))
    assert json.loads(picture.info["mtcp"])["light"] == "D65"
    assert b"albedo.png" in post(server, "format=multipart").content


@pytest.mark.parametrize("format", ["npz", "json"])
def test_the_client_reads_it(server: TestClient, format: str) -> None:
    maps = read_prediction(post(server, f"format={format}"), encode(IMAGE))
    np.testing.assert_allclose(maps["albedo"], IMAGE / 255, rtol=1e-6)
    assert maps.about("albedo")["light"] == "D65"
    assert np.array_equal(np.asarray(maps.image("albedo")), IMAGE)
    assert "albedo: under D65" in maps._repr_html_()


def test_a_larger_image_has_it_resampled(server: TestClient) -> None:
    answer = read_prediction(post(server, "format=npz", noise(2 * HEIGHT, 2 * WIDTH)), encode(IMAGE))
    assert answer["albedo"].shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert answer.about("albedo")["resampled"] == "bilinear"


def test_documents_and_protocols_name_it(server: TestClient) -> None:
    assert server.get("/models").json()["models"][0]["tasks"][0]["light"] == "D65"
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    assert {"AlbedoOut", "AlbedoTask", "DepthOut"} <= schemas.keys()
    (output,) = server.get("/v2/models/tiny").json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [-1, HEIGHT, WIDTH, 3])


def test_the_commands_take_it(folder: Path, tmp_path: Path) -> None:
    checked = CliRunner().invoke(cli, ["check", str(folder)])
    assert checked.exit_code == 0, checked.output
    assert "map albedo" in checked.output
    image = tmp_path / "image.png"
    image.write_bytes(encode(IMAGE))
    done = CliRunner().invoke(cli, ["predict", str(image), "-o", str(tmp_path / "out"), "-b", str(folder)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "image" / "overview.png").is_file()
    with Image.open(tmp_path / "out" / "image" / "albedo.png") as picture:
        assert np.array_equal(np.asarray(picture), IMAGE)
