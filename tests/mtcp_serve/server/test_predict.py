"""``POST /predict`` on good images: every map is exactly what the tiny graph makes of the image."""

import base64
import json
from email import message_from_bytes
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mtcp_serve.outputs.formats import FORMATS
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH, encode, noise

NAMES = [task.name for task in TASKS]


def post(client: TestClient, data: bytes = GOOD, headers: dict[str, str] | None = None, **query: str) -> Any:
    headers = {"Content-Type": "image/png"} | (headers or {})
    return client.post("/predict", params=query, content=data, headers=headers)


def arrays(response: Any) -> dict[str, Any]:
    with np.load(BytesIO(response.content), allow_pickle=False) as archive:
        return dict(archive)


def png(answer: Any, name: str) -> Any:
    return np.asarray(Image.open(BytesIO(base64.b64decode(answer["maps"][name]["png"]))))


def expected(photo: Any) -> dict[str, Any]:
    values = photo.astype(np.float64)
    mean = values.mean(-1)
    direction = values / 127.5 - 1
    return {
        "semseg": (mean >= 85).astype(np.uint8) + (mean >= 170).astype(np.uint8),
        "depth": mean / 25.5,
        "normals": direction / np.linalg.norm(direction, axis=-1, keepdims=True),
        "saliency": values[..., 0] / 255,
        "parsing": (values[..., 2] >= 128).astype(np.uint8),
    }


def test_json_maps_are_exact(client: TestClient) -> None:
    response = post(client)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    want = expected(noise(HEIGHT, WIDTH))
    assert list(answer["maps"]) == NAMES
    assert np.array_equal(png(answer, "semseg"), want["semseg"])
    assert np.array_equal(png(answer, "parsing"), want["parsing"])
    assert np.abs(png(answer, "depth") / 1000 - want["depth"]).max() <= 0.00051
    assert np.abs(png(answer, "normals") / 127.5 - 1 - want["normals"]).max() <= 0.5 / 127.5 + 1e-6
    assert np.abs(png(answer, "saliency") / 255 - want["saliency"]).max() <= 0.5 / 255 + 1e-6


def test_json_metadata(client: TestClient) -> None:
    answer = post(client).json()
    assert answer["models"] == [{"name": "tiny", "version": "7", "width": WIDTH, "height": HEIGHT}]
    assert answer["image"] == {
        "width": WIDTH,
        "height": HEIGHT,
        "format": "PNG",
        "mode": "RGB",
        "exif_rotated": False,
        "animated": False,
        "camera": {"fx": 27.713, "fy": 27.713, "cx": 15.5, "cy": 11.5, "source": "assumed"},
    }
    assert set(answer["timings_ms"]) == {"queue", "decode", "infer", "encode"}
    semseg, depth = answer["maps"]["semseg"], answer["maps"]["depth"]
    assert {key: semseg[key] for key in ("kind", "dataset", "ignore_index", "resampled")} == {
        "kind": "labels", "dataset": "steps", "ignore_index": 255, "resampled": "none",
    }  # fmt: skip
    assert (depth["unit"], depth["png_scale"], depth["trained_on"]) == ("m", 0.001, "grey levels")


def test_npz_maps_are_exact(client: TestClient) -> None:
    response = post(client, format="npz")
    assert response.headers["content-type"] == "application/x-npz"
    found = arrays(response)
    assert list(found) == [*NAMES, "metadata"]
    for name, want in expected(noise(HEIGHT, WIDTH)).items():
        assert found[name].shape == want.shape
        assert np.allclose(found[name], want, atol=1e-5)
    assert list(json.loads(found["metadata"].item())["maps"]) == NAMES


def test_multipart_and_raw_bodies_are_the_same(client: TestClient) -> None:
    raw = arrays(post(client, format="npz"))
    octets = arrays(post(client, headers={"Content-Type": "application/octet-stream"}, format="npz"))
    files = {"image": ("photo.jpg", GOOD, "text/plain")}
    form = arrays(client.post("/predict?format=npz", files=files))
    for name in NAMES:
        assert np.array_equal(raw[name], octets[name])
        assert np.array_equal(raw[name], form[name])


def test_size_input_resizes_by_the_rules(client: TestClient) -> None:
    photo = encode(noise(90, 70))
    model = arrays(post(client, photo, format="npz", size="model"))
    large = arrays(post(client, photo, format="npz", size="input"))
    for task in TASKS:
        assert model[task.name].shape[:2] == (HEIGHT, WIDTH)
        assert large[task.name].shape[:2] == (90, 70)
        assert np.array_equal(large[task.name], task.resize(model[task.name], 90, 70))
    answer = post(client, photo).json()
    assert {name: entry["resampled"] for name, entry in answer["maps"].items()} == {
        "semseg": "majority", "depth": "bilinear", "normals": "bilinear", "saliency": "bilinear",
        "parsing": "majority",
    }  # fmt: skip
    assert (answer["image"]["width"], answer["maps"]["depth"]["height"]) == (70, 90)


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        ("depth", ["depth"]),
        ("parsing,semseg", ["parsing", "semseg"]),
        (" depth , depth,,saliency", ["depth", "saliency"]),
    ],
)
def test_tasks(client: TestClient, tasks: str, names: list[str]) -> None:
    assert list(post(client, tasks=tasks).json()["maps"]) == names


def test_accept_header_chooses_the_format(client: TestClient) -> None:
    headers = {"Accept": "application/json;q=0.5, application/x-npz"}
    assert post(client, headers=headers).headers["content-type"] == "application/x-npz"
    assert post(client, headers=headers, format="json").headers["content-type"] == "application/json"
    assert post(client, headers={"Accept": "image/png"}).status_code == 406


def test_several_accept_headers_are_one_list(client: TestClient) -> None:
    headers = [("Content-Type", "image/png"), ("Accept", "text/html"), ("Accept", "application/zip")]
    response = client.post("/predict", content=GOOD, headers=headers)
    assert response.headers["content-type"] == "application/zip"
    files = {"image": GOOD}
    response = client.post("/predict/batch", files=files, headers=headers[1:])
    assert response.headers["content-type"] == "application/zip"


def test_server_timing_in_every_format(client: TestClient) -> None:
    for name, form in FORMATS.items():
        tasks = "depth" if form.single else "depth,saliency"
        header = post(client, format=name, tasks=tasks).headers["server-timing"]
        assert [part.split(";dur=")[0] for part in header.split(", ")] == [
            "queue",
            "decode",
            "infer",
            "encode",
        ]


def test_png_is_the_map_itself(client: TestClient) -> None:
    by_parameter = post(client, tasks="depth", format="png")
    by_header = post(client, tasks="depth", headers={"Accept": "image/png"})
    for response in (by_parameter, by_header):
        assert response.headers["content-type"] == "image/png"
        image = Image.open(BytesIO(response.content))
        assert np.abs(np.asarray(image) / 1000 - expected(noise(HEIGHT, WIDTH))["depth"]).max() <= 0.00051
        assert json.loads(image.info["mtcp-image"])["width"] == WIDTH


def test_zip_and_multipart_hold_the_same_files_as_json(client: TestClient) -> None:
    answer = post(client).json()
    want = {f"{name}.png": base64.b64decode(entry["png"]) for name, entry in answer["maps"].items()}
    with ZipFile(BytesIO(post(client, format="zip").content)) as archive:
        assert {name: archive.read(name) for name in want} == want
        assert set(archive.namelist()) == {*want, "metadata.json"}
    response = post(client, format="multipart")
    message = message_from_bytes(
        b"Content-Type: " + response.headers["content-type"].encode() + b"\r\n\r\n" + response.content
    )
    parts: Any = message.get_payload()
    assert parts[0].get_content_type() == "application/json"
    assert {part.get_filename(): part.get_payload(decode=True) for part in parts[1:]} == want


def test_visualize(client: TestClient) -> None:
    plain, visual = post(client).json(), post(client, visualize="true").json()
    for name in NAMES:
        picture = Image.open(BytesIO(base64.b64decode(visual["maps"][name]["visualization"])))
        assert (picture.mode, picture.size) == ("RGB", (WIDTH, HEIGHT))
        assert visual["maps"][name]["png"] == plain["maps"][name]["png"]
        assert "visualization" not in plain["maps"][name]


def test_model_by_name(client: TestClient) -> None:
    assert post(client, model="tiny").status_code == 200


def test_rotated_and_animated_images_say_so(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = post(client, encode(noise(40, 60), "JPEG", exif=exif)).json()
    assert answer["image"]["exif_rotated"]
    assert (answer["maps"]["depth"]["width"], answer["maps"]["depth"]["height"]) == (40, 60)
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    answer = post(client, encode(frames[0], "GIF", save_all=True, append_images=frames[1:])).json()
    assert answer["image"]["animated"]
    assert (png(answer, "saliency") == 255).all()


def test_a_jpeg_beyond_the_pixel_limit_is_answered_at_the_models_size(client: TestClient) -> None:
    data = encode(Image.new("RGB", (3000, 2000), (200, 40, 90)), "JPEG")
    small = post(client, data, {"Content-Type": "image/jpeg"}, size="model")
    assert small.status_code == 200
    assert (small.json()["image"]["width"], small.json()["image"]["height"]) == (3000, 2000)
    whole = post(client, data, {"Content-Type": "image/jpeg"})
    assert (whole.status_code, whole.json()["error"]["code"]) == (413, "image_too_large")
    assert "6000000 pixels, the limit is 4000000" in whole.json()["error"]["message"]
    assert "size=model" in whole.json()["error"]["hint"]
