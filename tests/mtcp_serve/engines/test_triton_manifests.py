"""What a real Triton says of its models, where it is not what ``export.triton`` wrote."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from export.triton import Serving, write_repository
from export.triton.config import read_config
from export.triton.local import LocalTriton
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.triton_config import WRITE_AGAIN
from mtcp_serve.clients import ServerError, TritonClient
from mtcp_serve.engines.triton import TritonEngine
from mtcp_serve.errors import BundleError
from tests.mtcp_serve.support import GOOD, HEIGHT, WIDTH, make_bundle
from tests.needs import needs_triton

pytestmark = needs_triton
Config = Any
"""Triton's ``ModelConfig``."""


class Repository:
    """One with the tiny model, whose config tests change, in a Triton that has loaded it."""

    def __init__(self, folder: Path) -> None:
        bundle = Bundle.open(make_bundle(folder / "tiny"))
        serving = Serving(threads=1, max_batch=4)
        self._config = write_repository(bundle, folder / "repository", backend="python", serving=serving)
        self._config /= "config.pbtxt"
        self._text = self._config.read_text()
        self.triton = LocalTriton(folder / "repository")

    def load(self, change: Callable[[Config], None]) -> str:
        """Have Triton load the model with its config changed; how its address is called in messages."""
        config = read_config(self._text)
        change(config)
        self._config.write_text(str(config))
        with InferenceServerClient(self.triton.grpc) as control:
            control.load_model("tiny")
        return f"Triton {self.triton.grpc}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    repository = Repository(tmp_path_factory.mktemp("triton"))
    with repository.triton:
        yield repository


def refusal(repository: Repository) -> str:
    """What who starts a gateway before it is told."""
    with pytest.raises(BundleError) as caught:
        TritonEngine.load([repository.triton.grpc])
    return str(caught.value)


def manifest(text: str) -> Callable[[Config], None]:
    """The manifest's text is another one."""

    def change(config: Config) -> None:
        config.parameters["manifest.7"].string_value = text

    return change


def edited(**keys: Any) -> Callable[[Config], None]:
    """Keys of the manifest have other values."""

    def change(config: Config) -> None:
        known = json.loads(config.parameters["manifest.7"].string_value)
        config.parameters["manifest.7"].string_value = json.dumps({**known, **keys})

    return change


def task(number: int, **keys: Any) -> Callable[[Config], None]:
    """Keys of one of the manifest's tasks have other values; without any, the task is not there."""

    def change(config: Config) -> None:
        tasks = json.loads(config.parameters["manifest.7"].string_value)["tasks"]
        tasks[number : number + 1] = [{**tasks[number], **keys}] if keys else []
        edited(tasks=tasks)(config)

    return change


def other_version(config: Config) -> None:
    """The manifest of a version that is not there."""
    config.parameters["manifest.6"].CopyFrom(config.parameters["manifest.7"])
    del config.parameters["manifest.7"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_version, r"is missing (parameter manifest.7)"),
        (manifest("{'name': 'tiny'}"), "is not JSON: Expecting property name"),
        (manifest('["tiny"]'), "has schema None, but this mtcp-serve reads schema 1"),
        (edited(schema=2), "has schema 2, but this mtcp-serve reads schema 1"),
        (edited(tasks=[], more=1), "is not a valid manifest: tasks: "),
        (edited(name="mtcp"), "is that of a model called mtcp"),
    ],
)
def test_a_manifest_that_cannot_be_read(
    repository: Repository, change: Callable[[Config], None], message: str
) -> None:
    """Who starts the gateway is told the model, the server, what is wrong and what to do."""
    server = repository.load(change)
    said = refusal(repository)
    assert f"the manifest of tiny, version 7, in its config at {server} {message}" in said
    assert said.endswith(f": {WRITE_AGAIN}")
    assert "\n" not in said
    if change is not other_version:
        with TritonClient(repository.triton.grpc) as client, pytest.raises(ServerError) as refused:
            client.predict(GOOD)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited(input={"height": 48, "width": WIDTH}), f"manifest shape ['batch', 48, {WIDTH}, 3]"),
        (task(1, dtype="float16"), "output 'depth_metres': manifest type float16, graph type float32"),
        (task(3), "graph outputs are ['depth_metres', 'normals', 'parsing', 'saliency', 'semseg']"),
        (task(3, output="other"), "manifest outputs are ['depth_metres', 'normals', 'other', 'parsing', "),
    ],
)
def test_a_manifest_that_is_not_that_of_the_model(
    repository: Repository, change: Callable[[Config], None], message: str
) -> None:
    server = repository.load(change)
    said = refusal(repository)
    assert said.startswith(f"tiny at {server}: the manifest does not match the graph: ")
    assert message in said
    assert said.endswith(f": {WRITE_AGAIN}")


def test_maps_that_are_not_the_manifests_are_refused_by_the_client(repository: Repository) -> None:
    """It asks for no metadata, so that it is the answer that tells."""
    repository.load(task(1, dtype="float16"))
    message = rf"depth_metres is float32 \[1, {HEIGHT}, {WIDTH}\], the manifest says float16 "
    with TritonClient(repository.triton.grpc) as client, pytest.raises(ServerError, match=message):
        client.predict(GOOD)


def test_models_of_others_are_left_out(repository: Repository) -> None:
    server = repository.load(lambda config: config.parameters.clear())
    with pytest.raises(BundleError, match=rf"no model at {server} has a manifest \(tiny\): {WRITE_AGAIN}"):
        TritonEngine.load([repository.triton.grpc])


def test_batches_that_triton_does_not_take(repository: Repository) -> None:
    repository.load(lambda config: None)
    (engine,) = TritonEngine.load([repository.triton.grpc], max_batch_size=4)
    assert engine.manifest.name == "tiny"
    message = "takes at most 4 images at a time, max_batch_size is 5: lower it .* --max-batch 5"
    with pytest.raises(BundleError, match=message):
        TritonEngine.load([repository.triton.grpc], max_batch_size=5)
