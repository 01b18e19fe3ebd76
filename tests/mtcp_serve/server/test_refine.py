"""``refine=true``: maps of every format follow the edges of the image; cut-outs do so unless told not to."""

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from mtcp_serve.kinds.guided import Guide
from mtcp_serve.outputs.cutout import cutout
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.server.test_predict import arrays
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH, encode

SIZE = (120, 160)
RAW = {"Content-Type": "application/octet-stream"}
REFINED = {"semseg": "guided", "depth": "guided", "saliency": "guided", "parsing": "guided"}


def drawing(size: tuple[int, int] = SIZE) -> Any:
    """A bright, reddish disc before a dark, bluish ground."""
    down, across = (np.indices(size).T / size - 0.5).T
    inside = np.hypot(down, across)[..., None] < 0.3
    return np.where(inside, (240, 200, 90), (20, 40, 160)).astype(np.uint8)


PIXELS = drawing()
IMAGE = encode(PIXELS)


def ask(client: TestClient, data: bytes = IMAGE, **query: str) -> Any:
    return client.post("/predict", params=query, content=data, headers=RAW)


@pytest.fixture(scope="module")
def wanted(client: TestClient) -> dict[str, Any]:
    """By the kinds themselves, of the maps as the model gives them."""
    raw = arrays(ask(client, format="npz", size="model"))
    found = {}
    for task in TASKS:
        values = raw[task.name]
        found[task.name] = task.resize(values, *SIZE)
        if task.refines(values):
            found[task.name] = np.empty(SIZE, task.array_type)
            task.refine(values, Guide(lambda: PIXELS), found[task.name])
    return found


def test_arrays_are_what_the_kinds_say(client: TestClient, wanted: dict[str, Any]) -> None:
    plain, found = (arrays(ask(client, format="npz", refine=refine)) for refine in ("false", "true"))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
        assert np.array_equal(plain[name], values) == (name == "normals")
    said = json.loads(found["metadata"].item())["maps"]
    assert {name: about["resampled"] for name, about in said.items()} == {**REFINED, "normals": "bilinear"}


def test_pictures_are_of_the_same_maps(client: TestClient, wanted: dict[str, Any]) -> None:
    for data in (ask(client, refine="true").json(), ask(client, refine="true", visualize="true").json()):
        png = Image.open(BytesIO(base64.b64decode(data["maps"]["semseg"]["png"])))
        assert np.array_equal(np.asarray(png), wanted["semseg"])
        assert data["maps"]["depth"]["resampled"] == "guided"
    alone = ask(client, refine="true", tasks="saliency", format="png")
    grey = np.asarray(Image.open(BytesIO(alone.content)))
    assert np.abs(grey - 255 * wanted["saliency"]).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("format", ["zip", "multipart", "exr"])
def test_other_formats_of_maps_take_it(client: TestClient, format: str) -> None:
    plain, refined = ask(client, format=format), ask(client, format=format, refine="true")
    assert (plain.status_code, refined.status_code) == (200, 200)
    assert plain.content != refined.content


def test_cut_outs_follow_the_image_unless_told_not_to(client: TestClient, wanted: dict[str, Any]) -> None:
    path = "/predict?format=cutout"
    found = [
        np.asarray(Image.open(BytesIO(client.post(address, content=IMAGE, headers=RAW).content)))
        for address in (path, f"{path}&refine=true", f"{path}&refine=false")
    ]
    assert np.array_equal(found[0], cutout(PIXELS, wanted["saliency"]))
    assert np.array_equal(found[1], found[0])
    plain = arrays(ask(client, format="npz", tasks="saliency"))["saliency"]
    assert np.array_equal(found[2], cutout(PIXELS, plain))
    assert not np.array_equal(found[2], found[0])


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (HEIGHT - 4, WIDTH - 2)])
def test_what_is_not_enlarged_is_as_it_was(client: TestClient, size: tuple[int, int]) -> None:
    data = encode(drawing(size))
    plain, refined = ask(client, data).json(), ask(client, data, refine="true").json()
    assert refined["maps"] == plain["maps"]
    cut = ask(client, data, format="cutout").content
    assert cut == ask(client, data, format="cutout", refine="false").content


def test_a_batch_and_a_form_take_it(client: TestClient, wanted: dict[str, Any]) -> None:
    files = [("image", ("a.png", IMAGE)), ("image", ("b.png", GOOD))]
    answer = client.post("/predict/batch", files=files, data={"refine": "true"}).json()
    first, second = (entry["response"]["maps"]["parsing"] for entry in answer["results"])
    png = Image.open(BytesIO(base64.b64decode(first["png"])))
    assert np.array_equal(np.asarray(png), wanted["parsing"])
    assert (first["resampled"], second["resampled"]) == ("guided", "none")
    response = client.post("/predict", files={"image": ("a.png", IMAGE)}, data={"refine": "true"})
    assert response.json()["maps"]["depth"]["resampled"] == "guided"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"size": "model"}, "but size is model"),
        ({"format": "ply"}, "format ply has no refine"),
        ({"format": "glb"}, "format glb has no refine"),
    ],
)
def test_what_would_be_without_effect_is_refused(
    client: TestClient, query: dict[str, str], reason: str
) -> None:
    response = client.post("/predict", params={"refine": "true", **query}, content=IMAGE, headers=RAW)
    check_error(response, 422, "invalid_parameter")
    assert reason in response.json()["error"]["message"]


def test_normals_are_as_they_were_and_say_so(client: TestClient) -> None:
    plain, refined = (ask(client, tasks="normals", refine=refine).json() for refine in ("false", "true"))
    assert refined["maps"] == plain["maps"]
    assert refined["maps"]["normals"]["resampled"] == "bilinear"
