import copy
from pathlib import Path

import numpy as np
import pytest

from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.onnx.convert import Converted, convert
from export.validation_images import RgbImage
from tests.export.networks import HEIGHT, WIDTH, mtcp_graph, tiny_graph


@pytest.fixture(scope="session")
def images() -> dict[str, RgbImage]:
    """Four smooth colored pictures: not a multiple of three."""
    rows, columns = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return {
        f"wave{index}": np.stack(
            [127 + 127 * np.sin(index + 9 * rows * phase + 7 * columns) for phase in (1, 2, 3)], axis=-1
        ).astype(np.uint8)
        for index in range(4)
    }


@pytest.fixture(scope="session")
def graph() -> DeploymentGraph:
    return tiny_graph()


@pytest.fixture(scope="session")
def _converted(graph: DeploymentGraph) -> Converted:
    return convert(graph)


@pytest.fixture
def converted(_converted: Converted) -> Converted:
    """The tiny network as ONNX, a copy that a test may spoil."""
    return copy.deepcopy(_converted)


@pytest.fixture(scope="session")
def mtcp() -> DeploymentGraph:
    return mtcp_graph()


@pytest.fixture(scope="session")
def deployed(mtcp: DeploymentGraph) -> Converted:
    """MT-CP as ONNX; not to be changed."""
    return convert(mtcp)


@pytest.fixture(scope="session")
def bundle(
    graph: DeploymentGraph, images: dict[str, RgbImage], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle of the tiny network."""
    folder = tmp_path_factory.mktemp("export") / "tiny"
    write_bundle(graph, images, folder, BundleOptions("tiny", "1"))
    return folder
