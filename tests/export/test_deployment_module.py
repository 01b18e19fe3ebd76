"""The deployment wrapper around a network."""

import pytest
import torch

from export.deployment_module import DeploymentGraph
from tests.export.networks import HEIGHT, TASKS, WIDTH, TinyNetwork
from training.postprocess import deployment_maps


def test_it_is_the_network_between_the_shared_processing() -> None:
    network = TinyNetwork()
    graph = DeploymentGraph(network, TASKS, HEIGHT, WIDTH)
    image = torch.randint(0, 256, (2, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    pixels = image.permute(0, 3, 1, 2)
    final = network(pixels).final
    torch.testing.assert_close(graph(image), deployment_maps(final, TASKS, (HEIGHT, WIDTH), pixels))
    plain = DeploymentGraph(network, TASKS, HEIGHT, WIDTH, refine=False)
    torch.testing.assert_close(plain(image), deployment_maps(final, TASKS, (HEIGHT, WIDTH)))


def test_confidences_come_after_the_maps(mtcp: DeploymentGraph) -> None:
    image = torch.randint(0, 256, (2, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = mtcp(image)
    assert mtcp.outputs == {
        "semseg": "labels", "depth": "depth",
        "semseg_confidence": "probability", "depth_confidence": "probability",
    }  # fmt: skip
    assert list(found) == list(mtcp.outputs)
    assert found["depth_confidence"].shape == (2, HEIGHT // 4, WIDTH // 4)
    assert 0 <= found["depth_confidence"].min() < found["depth_confidence"].max() <= 1


def test_the_network_is_put_into_evaluation_mode() -> None:
    network = TinyNetwork().train()
    DeploymentGraph(network, TASKS, HEIGHT, WIDTH)
    assert not network.training


def test_multiply_accumulates_in_closed_form(graph: DeploymentGraph) -> None:
    positions = HEIGHT // 4 * WIDTH // 4
    per_position = 64 * 3 * 7 * 7 + 64 * sum(task.channels for task in TASKS)
    assert graph.gmacs() == pytest.approx(positions * per_position / 1e9)
