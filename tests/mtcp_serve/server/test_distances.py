"""``distances=`` of a request: depth in every format agrees with them."""

import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mtcp_serve.inference.distances import Distances
from mtcp_serve.inference.images import ImageInfo
from tests.mtcp_serve.server.test_bad_input import check_error
from tests.mtcp_serve.server.test_predict import arrays
from tests.mtcp_serve.server.test_refine import IMAGE, RAW, SIZE, ask

KNOWN = "80,60,12.5,10,10,5"
HERE = ImageInfo(SIZE[1], SIZE[0], "PNG", "RGB", exif_rotated=False, animated=False)


@pytest.fixture(scope="module")
def wanted(client: TestClient) -> Any:
    raw = arrays(ask(client, format="npz", size="model", tasks="depth"))["depth"]
    return Distances.parse(KNOWN).correct(raw, HERE)[0]


def test_arrays_and_metadata(client: TestClient, wanted: Any) -> None:
    found = arrays(ask(client, format="npz", size="model", distances=KNOWN))
    np.testing.assert_array_equal(found["depth"], wanted)
    assert found["depth"][12, 16] == pytest.approx(12.5, rel=0.1)
    said = json.loads(found["metadata"].item())["maps"]
    assert said["depth"]["measured"]["points"] == 2
    assert said["depth"]["max"] == pytest.approx(float(wanted.max()), rel=1e-5)
    plain = arrays(ask(client, format="npz", size="model"))
    for name in ("semseg", "normals", "saliency", "parsing"):
        np.testing.assert_array_equal(found[name], plain[name])
        assert "measured" not in said[name]
    assert "measured" not in json.loads(plain["metadata"].item())["maps"]["depth"]


def test_points_and_surfaces_move_with_it(client: TestClient) -> None:
    plain = ask(client, format="ply", edges="true").content
    found = ask(client, format="ply", edges="true", distances=KNOWN).content
    header = plain.index(b"end_header\n") + len(b"end_header\n")
    assert plain[:header] == found[:header]
    assert plain[header:] != found[header:]
    for format in ("glb", "zip", "exr"):
        assert ask(client, format=format).content != ask(client, format=format, distances=KNOWN).content


def test_refined_depth_agrees_too(client: TestClient) -> None:
    found = arrays(ask(client, format="npz", refine="true", tasks="depth", distances=KNOWN))["depth"]
    assert found.shape == SIZE
    assert found[60, 80] == pytest.approx(12.5, rel=0.1)


def test_a_form_takes_thousands(client: TestClient) -> None:
    places = [(x, y) for y in range(0, SIZE[0], 4) for x in range(0, SIZE[1], 2)]
    text = ",".join(f"{x},{y},4.2" for x, y in places)
    assert 15_000 < len(text) < 2**16
    response = client.post("/predict", files={"image": IMAGE}, data={"distances": text, "tasks": "depth"})
    about = response.json()["maps"]["depth"]
    assert about["measured"]["points"] == len(places)
    assert about["max"] < 6


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"distances": "1,2"}, "distances are '1,2'"),
        ({"distances": "1,1,70"}, "is 70 m"),
        ({"distances": f"{SIZE[1]},1,2"}, f"the upright image has {SIZE[1]} x {SIZE[0]} pixels"),
        ({"distances": KNOWN, "tasks": "normals,semseg"}, "none is asked for"),
        ({"distances": KNOWN, "format": "cutout"}, "none is asked for"),
    ],
)
def test_what_would_be_without_effect_or_meaning_is_refused(
    client: TestClient, query: dict[str, str], reason: str
) -> None:
    response = client.post("/predict", params=query, content=IMAGE, headers=RAW)
    check_error(response, 422, "invalid_parameter")
    assert reason in response.json()["error"]["message"]


def test_a_batch_has_no_distances(client: TestClient) -> None:
    response = client.post("/predict/batch", params={"distances": KNOWN}, files={"image": IMAGE})
    check_error(response, 422, "invalid_parameter")


def test_a_stream_has_none_and_says_so(client: TestClient) -> None:
    with client.websocket_connect(f"/stream?distances={KNOWN}") as socket:
        message = socket.receive()
    assert (message["type"], message["code"]) == ("websocket.close", 1008)
    assert "distances are of one image" in message["reason"]
