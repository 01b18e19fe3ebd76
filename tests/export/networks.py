"""Networks small enough to export in a test."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.deployment_module import DeploymentGraph
from export.validation_images import RgbImage
from training.model.config import ModelConfig
from training.model.mtcp import MTCP
from training.tasks import TASK_NAMES, make_task

HEIGHT, WIDTH = 64, 96
SPACES = {"semseg": "voc", "parsing": "fashion"}
TASKS = tuple(make_task(name, SPACES.get(name)) for name in TASK_NAMES)


def waves() -> dict[str, RgbImage]:
    """Four smooth colored pictures: not a multiple of three."""
    rows, columns = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return {
        f"wave{index}": np.stack(
            [127 + 127 * np.sin(index + 9 * rows * phase + 7 * columns) for phase in (1, 2, 3)], axis=-1
        ).astype(np.uint8)
        for index in range(4)
    }


@dataclass
class Final:
    """The part of a network's predictions that is deployed."""

    final: dict[str, Tensor]


class TinyNetwork(nn.Module):
    """A convolution, a normalisation and one head a task, with the interface of the real network."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Conv2d(3, 64, 7, stride=4, padding=3)
            self.norm = nn.BatchNorm2d(64)
            nn.init.uniform_(self.get_buffer("norm.running_var"), 0.5, 2)
            self.heads = nn.ModuleDict({task.name: nn.Conv2d(64, task.channels, 1) for task in TASKS})
            nn.init.constant_(self.get_parameter("heads.depth.bias"), 2.5)  # metres

    def forward(self, images: Tensor) -> Final:
        features = self.norm(self.stem(images / 255)).relu()
        return Final({name: head(features) for name, head in self.heads.items()})


class _Encoder(nn.Module):
    """Four strided convolutions in place of a timm encoder, whose export would take most of the time."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        pairs = zip([3, *channels], channels, (4, 2, 2, 2), strict=False)
        self.stages = nn.ModuleList(
            nn.Conv2d(wide, narrow, 3, stride, padding=1) for wide, narrow, stride in pairs
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            images = stage(images).relu()
            features.append(images)
        return features


def tiny_graph() -> DeploymentGraph:
    """All five tasks over `TinyNetwork`, without the filter that `mtcp_graph` has: it would be most of it."""
    return DeploymentGraph(TinyNetwork(), TASKS, HEIGHT, WIDTH, refine=False)


def mtcp_graph() -> DeploymentGraph:
    """MT-CP for two tasks with every module of the real one behind a small encoder."""
    config = ModelConfig.model_validate(
        {
            "tasks": {"semseg": "voc", "depth": None},
            "backbone": {
                "encoder": "tf_efficientnet_lite0",
                "channels": 32,
                "encoder_layers": 1,
                "encoder_feedforward": 64,
                "decoder_layers": 1,
                "decoder_feedforward": 64,
                "heads": 4,
                "queries": 10,
            },
            "decoder": {"channels": 16, "depths": (1, 1, 1)},
            "coherence": {"kv_stride": 2},
            "confidence": True,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MTCP(config)
        network.backbone.register_module("encoder", _Encoder(network.backbone.encoder.channels))
        _fit(network)
    return DeploymentGraph(network, network.tasks, HEIGHT, WIDTH)


def _fit(network: MTCP) -> None:
    """Train for a moment, on which of its colors is the brightest and how bright a pixel is.

    The maps of a fresh network hardly vary, and its labels are near ties on every hundredth pixel: whether a
    graph in another precision gives the same is then a matter of luck.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1  # the next batch's statistics are the running ones
    images = torch.from_numpy(np.stack(list(waves().values()))).movedim(-1, 1).float()
    colors = functional.avg_pool2d(images / 255, 4)
    metres = 1 + 4 * colors.mean(1, keepdim=True)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(8):
        maps = network(images).final
        loss = functional.cross_entropy(maps["semseg"], colors.argmax(1))
        torch.autograd.backward(loss + functional.l1_loss(maps["depth"], metres))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        network(images)
