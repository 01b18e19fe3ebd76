"""``POST /predict/batch``: an entry for each image, and a bad one costs the others nothing."""

import base64
import json
from email import message_from_bytes
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, encode, noise

SECOND = encode(noise(40, 30, seed=3))


def post(client: TestClient, *photos: bytes, headers: dict[str, str] | None = None, **query: Any) -> Any:
    files: Any = [("image", (f"{index}.png", photo)) for index, photo in enumerate(photos)]
    return client.post("/predict/batch", params=query, files=files, headers=headers)


def single(client: TestClient, photo: bytes, **query: str) -> Any:
    return client.post("/predict", params=query, content=photo, headers=PNG).json()


def test_every_image_is_answered_as_it_would_be_alone(client: TestClient) -> None:
    response = post(client, GOOD, SECOND)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [(entry["index"], entry["name"], entry["status"]) for entry in results] == [
        (0, "0.png", 200), (1, "1.png", 200),
    ]  # fmt: skip
    for entry, photo in zip(results, (GOOD, SECOND), strict=True):
        alone = single(client, photo)
        for key in ("models", "image", "maps"):
            assert entry["response"][key] == alone[key]
        assert set(entry["response"]["timings_ms"]) == {"queue", "decode", "infer", "encode"}
    assert "infer;dur=" in response.headers["server-timing"]


def test_bad_images_cost_the_others_nothing(client: TestClient) -> None:
    photos = [b"no image", GOOD, b"", GOOD[:80], b"x" * 1_000_001, SECOND]
    results = post(client, *photos, tasks="depth").json()["results"]
    assert [entry["status"] for entry in results] == [400, 200, 400, 400, 413, 200]
    assert [entry["error"]["code"] for entry in results if "error" in entry] == [
        "invalid_image", "empty_image", "invalid_image", "payload_too_large",
    ]  # fmt: skip
    assert all(("error" in entry) != ("response" in entry) for entry in results)
    assert results[5]["response"]["maps"] == single(client, SECOND, tasks="depth")["maps"]


def test_zip_multipart_and_npz_hold_the_same_maps(client: TestClient) -> None:
    photos = (GOOD, b"bad", SECOND)
    results = post(client, *photos, tasks="depth,semseg").json()["results"]
    want = {
        f"{entry['index']}/{name}.png": base64.b64decode(found.pop("png"))
        for entry in results if "response" in entry
        for name, found in entry["response"]["maps"].items()
    }  # fmt: skip
    assert len(want) == 4

    def check(document: Any) -> None:
        for entry, other in zip(document["results"], results, strict=True):
            assert entry["status"] == other["status"]
            assert entry.get("error") == other.get("error")
            assert entry.get("response", {}).get("maps") == other.get("response", {}).get("maps")

    with ZipFile(BytesIO(post(client, *photos, tasks="depth,semseg", format="zip").content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    check(json.loads(files.pop("metadata.json")))
    assert files == want
    response = post(client, *photos, tasks="depth,semseg", headers={"Accept": "multipart/mixed"})
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    parts: Any = message_from_bytes(head + response.content).get_payload()
    check(json.loads(parts[0].get_payload(decode=True)))
    assert {part.get_filename(): part.get_payload(decode=True) for part in parts[1:]} == want
    content = post(client, *photos, tasks="depth,semseg", format="npz").content
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        check(json.loads(archive["metadata"].item()))
        assert set(archive.files) == {name.removesuffix(".png") for name in want} | {"metadata"}
        assert archive["2/depth"].shape == (40, 30)


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ({"format": "png", "tasks": "depth"}, {}, 422, "invalid_parameter"),
        ({"tasks": "depth"}, {"Accept": "image/png"}, 406, "not_acceptable"),
        ({"tasks": "x"}, {}, 404, "unknown_task"),
        ({"model": "x"}, {}, 404, "unknown_model"),
        ({"photos": "2"}, {}, 422, "invalid_parameter"),
        ({"tasks": ["depth", "semseg"]}, {}, 422, "invalid_parameter"),
    ],
)
def test_refused_as_a_whole(
    client: TestClient, query: dict[str, Any], headers: dict[str, str], status: int, code: str
) -> None:
    check_error(post(client, GOOD, headers=headers, **query), status, code)


@pytest.mark.parametrize(
    ("old", "there", "gone"), [(True, "answer", "response"), (False, "response", "answer")]
)
def test_the_old_name_of_a_response_comes_in_its_place(bundle: Any, old: bool, there: str, gone: str) -> None:
    with TestClient(create_app(Settings(bundle=(bundle,), intra_op_threads=1, batch_answer=old))) as client:
        good, bad = post(client, GOOD, b"bad", tasks="depth").json()["results"]
    assert set(good) == {"index", "name", "status", there}
    assert good[there]["maps"]["depth"]["png"]
    assert set(bad) == {"index", "name", "status", "error"}
    assert gone not in good


def test_limits(bundle: Any) -> None:
    settings = Settings(
        bundle=(bundle,), intra_op_threads=1, max_batch_images=3, max_batch_bytes=50_000, max_pixels=2000
    )
    with TestClient(create_app(settings)) as client:
        assert len(post(client, GOOD, GOOD, GOOD, size="model").json()["results"]) == 3
        error = check_error(post(client, *[GOOD] * 4), 413, "too_many_images")
        assert error["message"] == "the form has more than 3 fields 'image'"
        check_error(post(client, GOOD, b"x" * 50_000), 413, "payload_too_large")
        raw = client.post("/predict/batch", content=GOOD, headers=PNG)
        assert "several fields 'image'" in check_error(raw, 415, "unsupported_media_type")["hint"]
        check_error(client.post("/predict/batch", files={"photo": GOOD}), 400, "invalid_body")
        results = post(client, GOOD, GOOD, SECOND).json()["results"]
        assert [entry["status"] for entry in results] == [200, 200, 413]
        assert results[2]["error"]["code"] == "image_too_large"
        assert "size=model" in results[2]["error"]["hint"]
        assert post(client, GOOD, GOOD, SECOND, size="model").json()["results"][2]["status"] == 200


def test_the_image_that_goes_beyond_the_pixels_is_the_last(bundle: Any) -> None:
    long_header = PngInfo()
    long_header.add_text("Comment", "x" * 900_000, zip=True)  # its size takes longest to find
    first = encode(noise(24, 32), pnginfo=long_header)
    settings = Settings(bundle=(bundle,), intra_op_threads=1, max_pixels=2 * 24 * 32)
    with TestClient(create_app(settings)) as client:
        for _ in range(10):
            results = post(client, first, GOOD, GOOD, tasks="depth").json()["results"]
            assert [entry["status"] for entry in results] == [200, 200, 413]
