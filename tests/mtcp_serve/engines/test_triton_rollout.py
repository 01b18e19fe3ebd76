"""A gateway before real Tritons that replace version 1 by 2, unload 1, and go on."""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from starlette.testclient import TestClient
from tritonclient.grpc import InferenceServerClient

from export.triton import Serving, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import Manifest
from mtcp_serve.engines.base import Engine
from mtcp_serve.server import reloading
from mtcp_serve.server.app import create_app
from mtcp_serve.server.loading import load_engines
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.server.test_faults import load, statuses
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, make_bundle, noise
from tests.needs import needs_triton

pytestmark = needs_triton


class Rollout:
    """A Triton that serves the newest version of the tiny model only, and what it is given."""

    def __init__(self, folder: Path) -> None:
        self.version = 0
        self._bundle = make_bundle(folder / "tiny")
        self._repository = folder / "repository"
        self.write()
        self.triton = LocalTriton(self._repository)

    def write(self) -> Path:
        """Put the next version into the repository; its config."""
        self.version += 1
        manifest = Manifest.load(self._bundle)
        manifest.model_copy(update={"version": str(self.version)}).save(self._bundle)
        serving = Serving(threads=1, latest=1)
        model = write_repository(
            Bundle.open(self._bundle), self._repository, backend="python", serving=serving
        )
        return model / "config.pbtxt"

    def load(self) -> None:
        """Have Triton serve the newest version, and wait until the one before is gone."""
        with InferenceServerClient(self.triton.grpc) as control:
            control.load_model("tiny")
            until(lambda: not control.is_model_ready("tiny", str(self.version - 1)))

    def next(self) -> str:
        """Roll the next version out; its name."""
        self.write()
        self.load()
        return str(self.version)

    def inferences(self) -> int:
        """How many the version that is served has done."""
        with InferenceServerClient(self.triton.grpc) as control:
            found = control.get_inference_statistics("tiny", str(self.version)).model_stats
            return sum(each.inference_count for each in found)


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[Rollout]:
    rollout = Rollout(tmp_path)
    with rollout.triton:
        yield rollout


def predict(client: TestClient) -> Any:
    return client.post("/predict?size=model", content=GOOD, headers=PNG)


def versions(body: Any) -> set[str]:
    return {model["version"] for model in body["models"]}


def answered_by(response: Any) -> set[str]:
    assert response.status_code == 200, response.text
    return versions(response.json())


def said(server: Server, text: str) -> bool:
    return text in "".join(server.log)


def grown(outcomes: list[Any], size: int) -> bool:
    return len(outcomes) > size


def test_no_request_fails_while_the_version_is_replaced(rollout: Rollout) -> None:
    """Nor is one inferred twice: Triton has as many as there are responses, and the warm-ups."""
    server = Server(triton=rollout.triton.grpc, queue_size=16)
    try:
        with load(server, 4) as outcomes:
            for version in ("2", "3"):
                until(lambda: len(outcomes) > 8)
                assert rollout.next() == version
                until(partial(said, server, f"reloaded: tiny {version}"))
                until(partial(grown, outcomes, len(outcomes) + 8))
        assert not any(isinstance(outcome, httpx.TransportError) for outcome in outcomes)
        assert statuses(outcomes) == {200}
        found = [outcome.json()["models"][0]["version"] for outcome in outcomes]  # type: ignore[union-attr]
        assert set(found) == {"1", "2", "3"}
        warm_ups = 2  # Triton's own with noise, the gateway's with a black image
        assert rollout.inferences() == Counter(found)["3"] + warm_ups
    finally:
        assert server.stop() in CLEAN
    log = "".join(server.log)
    assert log.count("reloaded: ") == 2
    assert "Traceback" not in log


def test_every_way_in_goes_on(rollout: Rollout) -> None:
    """Whichever the first request after a roll-out comes by, it is answered by the new version."""
    grpc_port = free_port()
    settings = Settings(triton=(rollout.triton.grpc,), grpc_port=grpc_port)
    image = noise(HEIGHT, WIDTH)[None]

    def given() -> Any:
        tensor = tritonclient.grpc.InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        return [tensor]

    with (
        TestClient(create_app(settings)) as client,
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as grpc,
        client.websocket_connect("/stream?size=model&format=json") as stream,
    ):

        def through_grpc() -> set[str]:
            return {grpc.infer("tiny", given()).get_response().model_version}

        def through_a_grpc_stream() -> set[str]:
            answers: list[Any] = []
            grpc.start_stream(lambda result, error: answers.append((result, error)))
            grpc.async_stream_infer("tiny", given())
            until(lambda: bool(answers))
            grpc.stop_stream()
            ((result, error),) = answers
            assert error is None
            return {result.get_response().model_version}

        def through_v2() -> set[str]:
            tensor = {"name": "image", "datatype": "UINT8", "shape": image.shape, "data": image.tolist()}
            response = client.post("/v2/models/tiny/infer", json={"inputs": [tensor]})
            return {response.json()["model_version"]}

        def in_a_batch() -> set[str]:
            files = [("image", GOOD)] * 3
            results = client.post("/predict/batch?size=model", files=files).json()["results"]
            assert [result["status"] for result in results] == [200] * 3
            return set.union(*(versions(result["response"]) for result in results))

        def in_a_stream() -> set[str]:
            stream.send_bytes(GOOD)
            return versions(json.loads(stream.receive_bytes()))

        def in_a_form() -> set[str]:
            files = {"image": GOOD}
            return answered_by(client.post("/predict", files=files, data={"size": "model"}))

        ways: list[Callable[[], set[str]]] = [
            through_grpc, through_a_grpc_stream, through_v2, in_a_batch, in_a_stream, in_a_form
        ]  # fmt: skip
        for way in ways:
            assert way() == {str(rollout.version)}
            version = rollout.next()
            assert way() == {version}, way.__name__
            assert client.get(f"/v2/models/tiny/versions/{version}/ready").status_code == 200
            before = client.get(f"/v2/models/tiny/versions/{rollout.version - 1}/ready")
            assert before.status_code == 404
            assert grpc.is_model_ready("tiny", version)
        assert client.get("/v2/health/ready").status_code == 200


def test_one_of_two_that_has_rolled_over_is_left_out_until_the_other_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first, second = Rollout(tmp_path / "first"), Rollout(tmp_path / "second")
    settings = Settings(triton=(first.triton.grpc, second.triton.grpc))
    with first.triton, second.triton, TestClient(create_app(settings)) as client:
        with caplog.at_level(logging.INFO, "mtcp_serve.server.reloading"):
            for rolled, version in ((second, {"1"}), (first, {"2"})):
                rolled.next()
                assert [answered_by(predict(client)) for _ in range(4)] == [version] * 4
            second.triton.kill()  # what it did answer comes from the other now
            assert [answered_by(predict(client)) for _ in range(4)] == [{"2"}] * 4
        assert [record.getMessage() for record in caplog.records if "reloaded" in record.message] == [
            "reloaded: tiny 2"
        ]
        first.triton.kill()
        check_error(predict(client), 503, "engine_lost")


def test_a_new_version_that_cannot_be_served_is_503_until_it_can(
    rollout: Rollout, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "AGAIN_S", 0.05)
    with TestClient(create_app(Settings(triton=(rollout.triton.grpc,)))) as client:
        config = rollout.write()
        text = config.read_text()
        config.write_text(text.replace("manifest.2", "manifest.9"))
        rollout.load()
        loads: list[Settings] = []

        def counted(settings: Settings) -> list[Engine]:
            loads.append(settings)
            return load_engines(settings)

        monkeypatch.setattr(reloading, "load_engines", counted)

        def tried(times: int) -> bool:
            response = predict(client)
            check_error(response, 503, "engine_lost")
            assert response.headers["retry-after"] == "1"
            return len(loads) >= times

        until(lambda: tried(3))
        (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert "the manifest of tiny, version 2, " in said
        assert "is missing (parameter manifest.2)" in said
        config.write_text(text)
        with InferenceServerClient(rollout.triton.grpc) as control:
            control.load_model("tiny")
        until(lambda: predict(client).status_code == 200)
        assert answered_by(predict(client)) == {"2"}


def test_a_triton_that_comes_back_with_another_version(rollout: Rollout) -> None:
    """As when its container is replaced: meanwhile 503, then the version that it has."""
    with TestClient(create_app(Settings(triton=(rollout.triton.grpc,)))) as client:
        assert answered_by(predict(client)) == {"1"}
        rollout.triton.kill()
        check_error(predict(client), 503, "engine_lost")
        rollout.write()
        with LocalTriton(rollout.triton.repository, grpc_port=rollout.triton.grpc_port):
            until(lambda: predict(client).status_code == 200)
            response = client.post("/predict?size=model&format=npz", content=GOOD, headers=PNG)
            with np.load(io.BytesIO(response.content)) as maps:
                assert versions(json.loads(bytes(maps["metadata"]))) == {"2"}
