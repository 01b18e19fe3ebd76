"""The OpenEXR file: the values of npz, bit for bit, as OpenEXR reads them."""

import json
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from starlette.testclient import TestClient

from mtcp_serve.engines.sessions import cores
from mtcp_serve.outputs.formats import base
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.support import encode, noise
from tests.needs import needs_linux

RAW = {"Content-Type": "application/octet-stream"}
PHOTO = encode(noise(50, 70))


@pytest.mark.parametrize("size", ["input", "model"])
def test_the_channels_are_the_arrays_of_npz(client: TestClient, tmp_path: Path, size: str) -> None:
    response = client.post(f"/predict?format=exr&size={size}", content=PHOTO, headers=RAW)
    assert response.headers["content-type"] == "image/x-exr"
    path = tmp_path / "maps.exr"
    path.write_bytes(response.content)
    file = OpenEXR.File(str(path), separate_channels=True)
    found = {name: channel.pixels for name, channel in file.channels().items()}
    body = client.post(f"/predict?format=npz&size={size}", content=PHOTO, headers=RAW).content
    with np.load(BytesIO(body)) as arrays:
        want = {
            "depth.Z": arrays["depth"],
            "saliency.Y": arrays["saliency"],
            "semseg.id": arrays["semseg"],
            "parsing.id": arrays["parsing"],
            **{f"normals.{axis}": arrays["normals"][..., at] for at, axis in enumerate("XYZ")},
        }
    assert found.keys() == want.keys()
    for name, values in want.items():
        assert np.array_equal(found[name], values), name
    assert found["depth.Z"].dtype == np.float32
    document = json.loads(file.header()["mtcp"])
    assert document["maps"]["depth"]["unit"] == "m"
    assert document["image"]["camera"]["source"] == "assumed"


def test_accept_and_one_task(client: TestClient) -> None:
    headers = {**RAW, "Accept": "image/x-exr"}
    response = client.post("/predict?tasks=depth", content=PHOTO, headers=headers)
    assert response.headers["content-type"] == "image/x-exr"
    assert response.content[:4] == b"\x76\x2f\x31\x01"


def test_without_the_extra_it_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    response = client.post("/predict?format=exr", content=PHOTO, headers=RAW)
    check_error(response, 422, "invalid_parameter")
    assert "mtcp-serve[openexr]" in response.json()["error"]["hint"]


@needs_linux
def test_it_needs_no_place_on_a_disk(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    response = client.post("/predict?format=exr", content=PHOTO, headers=RAW)
    assert response.content[:4] == b"\x76\x2f\x31\x01"
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if "memfd:maps.exr" in str(fd.resolve())]


def test_all_cores_compress(client: TestClient) -> None:
    client.post("/predict?format=exr", content=PHOTO, headers=RAW)
    assert OpenEXR.global_thread_count() == cores()
