import copy
from pathlib import Path

import pytest

from export.bundle_writer import BundleOptions, write_bundle
from export.deployment_module import DeploymentGraph
from export.onnx.convert import Converted, convert
from export.validation_images import RgbImage
from tests.export.networks import mtcp_graph, tiny_graph, waves


@pytest.fixture(scope="session")
def images() -> dict[str, RgbImage]:
    return waves()


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
