"""How sure the model is, over the Open Inference Protocol: offered, and given only where it is named."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from mtcp_serve.clients import AsyncTritonClient, InvalidRequestError, TritonClient
from mtcp_serve.prediction import Prediction
from tests.mtcp_serve.confident import OWN_WORDS, expected_confidences, make_confident_bundle
from tests.mtcp_serve.process import CLEAN, Server, free_port
from tests.mtcp_serve.support import HEIGHT, TASKS, WIDTH, noise

MODES = {"http": tritonclient.http, "grpc": tritonclient.grpc}
IMAGES = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(2)])
WANTED = expected_confidences(IMAGES)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    port = free_port()
    server = Server(make_confident_bundle(tmp_path_factory.mktemp("bundles") / "tiny"), grpc_port=port)
    yield {"http": server.url.removeprefix("http://"), "grpc": f"127.0.0.1:{port}"}
    assert server.stop() in CLEAN


@pytest.mark.parametrize("mode", MODES)
def test_it_is_offered_and_given_where_it_is_named(ports: dict[str, str], mode: str) -> None:
    module = MODES[mode]
    with module.InferenceServerClient(ports[mode]) as client:
        image = module.InferInput("image", list(IMAGES.shape), "UINT8")
        image.set_data_from_numpy(IMAGES)
        as_json: Any = {} if mode == "http" else {"as_json": True}
        offered = {entry["name"]: entry for entry in client.get_model_metadata("tiny", **as_json)["outputs"]}
        outputs = [module.InferRequestedOutput(name) for name in ("semseg_confidence", "parsing", "how_sure")]
        chosen = client.infer("tiny", [image], outputs=outputs)
        everything = client.infer("tiny", [image])
    assert list(offered) == [*(task.output for task in TASKS), "semseg_confidence", "how_sure"]
    assert offered["semseg_confidence"]["datatype"] == "FP32"
    assert [int(side) for side in offered["semseg_confidence"]["shape"]] == [-1, HEIGHT // 2, WIDTH // 2]
    assert np.allclose(chosen.as_numpy("semseg_confidence"), WANTED["semseg"], atol=1e-6)
    assert np.allclose(chosen.as_numpy("how_sure"), WANTED["depth"], atol=1e-6)
    assert chosen.as_numpy("semseg") is None
    assert everything.as_numpy("semseg_confidence") is None
    assert all(everything.as_numpy(task.output) is not None for task in TASKS)


def test_our_clients_have_it(ports: dict[str, str]) -> None:
    async def predict() -> list[Prediction]:
        async with AsyncTritonClient(ports["grpc"]) as client:
            alone = await client.predict(IMAGES[0], ["depth", "saliency"], confidence=True)
            return [alone, *await client.infer(IMAGES[:1], ["depth", "saliency"], confidence=True)]

    with TritonClient(ports["grpc"]) as client:
        found = [
            client.predict(IMAGES[0], ["depth", "saliency"], confidence=True),
            *client.infer(IMAGES[:1], ["depth", "saliency"], confidence=True),
            *asyncio.run(predict()),
        ]
        (outcome,) = client.stream([IMAGES[0]], ["depth", "saliency"], confidence=True)
        assert outcome.prediction is not None
        large = client.predict(noise(60, 80), ["semseg"], size="input", confidence=True)
        with pytest.raises(KeyError, match="ask for it"):
            client.predict(IMAGES[0], ["depth"]).confidence("depth")
        with pytest.raises(InvalidRequestError, match="tiny does not say how sure it is of saliency"):
            client.predict(IMAGES[0], ["saliency"], confidence=True)
    for maps in (*found, outcome.prediction):
        assert np.allclose(maps.confidence("depth"), WANTED["depth"][0], atol=1e-6)
        assert maps.about("depth")["confidence"]["criterion"] == OWN_WORDS
        assert maps.metadata["without_confidence"] == ["saliency"]
    assert large.confidence("semseg").shape == (60, 80)
