"""The shared-encoder baseline through the same export."""

import onnxruntime as ort
import torch
from torch import nn

from export.deployment_module import DeploymentGraph
from export.onnx.convert import convert
from export.parity import check_parity
from export.validation_images import RgbImage
from tests.export.networks import HEIGHT, WIDTH
from training.model import DeepLab, DeepLabConfig


def test_it_agrees_with_pytorch_at_every_batch_size(images: dict[str, RgbImage]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DeepLab(DeepLabConfig(tasks={"semseg": "nyu13", "normals": None}, encoder="test_resnet"))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1  # the next batch's statistics are the running ones: maps that vary
        with torch.no_grad():
            network.train()(torch.randint(0, 256, (4, 3, HEIGHT, WIDTH)).float())
    graph = DeploymentGraph(network, network.tasks, HEIGHT, WIDTH)
    converted = convert(graph)
    check_parity(ort.InferenceSession(converted.model.SerializeToString()), graph, images)
    assert set(converted.parameters) == {name for name, _ in graph.named_parameters()}
