"""The bundle in the package, on images it was not trained on: are the maps recognisably right?"""

import json
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from starlette.testclient import TestClient

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.bundle.manifest import MODEL_FILE, LabelsTask, Manifest
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings

Maps = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(intra_op_threads=1))) as client:
        yield client


def predict(client: TestClient, picture: NDArray[np.uint8]) -> Maps:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    headers = {"Content-Type": "image/png"}
    answer = client.post("/predict?format=npz&size=model", content=buffer.getvalue(), headers=headers)
    assert answer.status_code == 200, answer.text
    with np.load(BytesIO(answer.content), allow_pickle=False) as maps:
        return {name: maps[name].astype(np.float64) for name in maps.files if name != "metadata"}


@pytest.fixture(scope="module")
def astronaut(client: TestClient) -> Maps:
    """512x512: a woman in a space suit from the chest up, a flag and a model of a rocket behind her."""
    return predict(client, data.astronaut())


def class_id(task: str, label: str) -> int:
    found = next(entry for entry in Manifest.load(DEFAULT_BUNDLE).tasks if entry.name == task)
    assert isinstance(found, LabelsTask)
    return found.labels.index(label)


def box(
    values: NDArray[np.float64], left: float, top: float, right: float, bottom: float
) -> NDArray[np.float64]:
    """The part of a map between shares of its width and height."""
    height, width = values.shape[:2]
    return values[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def test_the_bundle_is_small_and_its_parity_was_judged_on_images() -> None:
    assert (DEFAULT_BUNDLE / MODEL_FILE).stat().st_size < 20e6
    parity = json.loads((DEFAULT_BUNDLE / "parity.json").read_text())
    assert len(parity["images"]) >= 20
    tasks = {"semseg", "depth", "normals", "saliency", "parsing"}
    assert parity["tasks"].keys() == tasks | {f"{task}_confidence" for task in tasks}
    assert (DEFAULT_BUNDLE / "MODEL_CARD.md").is_file()


def test_people_are_people(astronaut: Maps) -> None:
    person = class_id("semseg", "person")
    assert (box(astronaut["semseg"], 0.25, 0.6, 0.55, 0.95) == person).mean() > 0.9
    assert (box(astronaut["semseg"], 0.65, 0.05, 0.95, 0.3) == person).mean() < 0.1


def test_a_face_is_skin_and_a_suit_is_clothes(astronaut: Maps) -> None:
    assert (box(astronaut["parsing"], 0.4, 0.18, 0.48, 0.28) == class_id("parsing", "skin")).mean() > 0.8
    assert (
        box(astronaut["parsing"], 0.2, 0.6, 0.5, 0.8) == class_id("parsing", "upper clothes")
    ).mean() > 0.6


def test_the_subject_is_salient_and_near(astronaut: Maps) -> None:
    body, wall = (0.3, 0.2, 0.5, 0.9), (0.65, 0.02, 0.72, 0.5)
    assert box(astronaut["saliency"], *body).mean() > 0.8
    assert box(astronaut["saliency"], *wall).mean() < 0.3
    subject, behind = box(astronaut["depth"], *body), box(astronaut["depth"], *wall)
    assert np.quantile(subject, 0.95) < 0.9 * np.quantile(behind, 0.05)  # all of her, not only on the whole


def test_maps_have_their_ranges(astronaut: Maps) -> None:
    lengths = np.linalg.norm(astronaut["normals"], axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
    assert astronaut["normals"][..., 2].min() >= 0
    assert 0.1 <= astronaut["depth"].min() <= astronaut["depth"].max() <= 10


def test_nobody_is_seen_in_a_cup_of_coffee(client: TestClient) -> None:
    maps = predict(client, data.coffee())
    assert (maps["semseg"] == class_id("semseg", "person")).mean() < 0.05
    assert (maps["parsing"] != class_id("parsing", "background")).mean() < 0.1


def test_a_table_seen_from_above_points_up_or_at_the_camera(client: TestClient) -> None:
    """A cup on a wooden table: the table's normals point up and towards the camera, hardly sideways."""
    normals = predict(client, data.coffee())["normals"]
    table = box(normals, 0.0, 0.75, 0.25, 1.0).reshape(-1, 3).mean(0)
    assert table[1] > 0.1
    assert abs(table[0]) < 0.5
