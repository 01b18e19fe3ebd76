"""How sure a model in a real Triton is: its outputs cross the socket, or shared memory, only where wanted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.triton import Serving, write_repository
from export.triton.local import LocalTriton
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.clients import TritonClient
from tests.mtcp_serve.confident import expected_confidences, make_confident_bundle
from tests.mtcp_serve.support import HEIGHT, WIDTH, noise
from tests.needs import needs_triton

pytestmark = needs_triton
IMAGES = np.stack([noise(HEIGHT, WIDTH, seed) for seed in range(2)])


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    folder: Path = tmp_path_factory.mktemp("triton")
    bundle = Bundle.open(make_confident_bundle(folder / "tiny"))
    write_repository(bundle, folder / "repository", backend="python", serving=Serving(threads=1))
    with LocalTriton(folder / "repository") as server:
        yield server


@pytest.mark.parametrize("shared_memory", [False, True])
def test_it_comes_where_it_is_wanted(triton: LocalTriton, shared_memory: bool) -> None:
    wanted = expected_confidences(IMAGES)
    with TritonClient(triton.grpc, shared_memory=shared_memory) as client:
        for index, maps in enumerate(client.infer(IMAGES, ["semseg", "depth"], confidence=True)):
            assert np.allclose(maps.confidence("depth"), wanted["depth"][index], atol=1e-6)
            assert maps.confidence("semseg").shape == (HEIGHT, WIDTH)
            assert maps.about("semseg")["confidence"]["mean"] == pytest.approx(
                wanted["semseg"][index].mean(), abs=1e-4
            )
        plain, _ = client.infer(IMAGES, ["depth"])
        with pytest.raises(KeyError, match="ask for it"):
            plain.confidence("depth")
