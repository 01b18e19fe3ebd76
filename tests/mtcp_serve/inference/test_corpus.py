"""Every file of the corpus gets its documented answer, alone and in a batch."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.mtcp_serve.corpus import OK_OR_BAD, Case, corpus
from tests.mtcp_serve.server.test_bad_input import check_alive, check_error

CASES = list(corpus())
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # odd metadata, as in `mtcp_serve.cli`
OCTETS = {"Content-Type": "application/octet-stream"}


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len({name for name, _, _ in CASES}) == len(CASES) >= 150


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_alone(client: TestClient, case: Case) -> None:
    _, data, (status, code) = case
    response = client.post("/predict?tasks=parsing&size=model", content=data, headers=OCTETS)
    if status == 200 or (status == OK_OR_BAD[0] and response.status_code == 200):
        assert response.status_code == 200, response.text
        assert response.json()["maps"]["parsing"]["png"]
    elif status == OK_OR_BAD[0]:
        error = response.json()["error"]
        assert (response.status_code, error["code"]) in {(400, "invalid_image"), (413, "image_too_large")}
    else:
        check_error(response, status, code)


def test_the_server_is_as_good_as_before(client: TestClient) -> None:
    check_alive(client)


def test_in_batches(client: TestClient) -> None:
    cases = [case for case in CASES if len(case[1]) < 200_000]
    for start in range(0, len(cases), 16):
        part = cases[start : start + 16]
        files: Any = [("image", (f"{start + index}.bin", data)) for index, (_, data, _) in enumerate(part)]
        response = client.post("/predict/batch?tasks=parsing&size=model", files=files)
        assert response.status_code == 200
        for (name, _, (status, code)), entry in zip(
            part, json.loads(response.content)["results"], strict=True
        ):
            if status != OK_OR_BAD[0]:
                assert (entry["status"], entry.get("error", {}).get("code", "")) == (status, code), name
