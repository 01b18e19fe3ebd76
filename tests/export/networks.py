"""Networks small enough to export in a test."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.deployment_module import DeploymentGraph
from training.model.config import ModelConfig
from training.model.mtcp import MTCP
from training.tasks import TASK_NAMES, make_task

HEIGHT, WIDTH = 64, 96
SPACES = {"semseg": "voc", "parsing": "fashion"}
TASKS = tuple(make_task(name, SPACES.get(name)) for name in TASK_NAMES)


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
        torch.manual_seed(1)  # fewer pixels on the border of two labels than with 0
        network = MTCP(config)
        network.backbone.register_module("encoder", _Encoder(network.backbone.encoder.channels))
        _enliven(network)
    return DeploymentGraph(network, network.tasks, HEIGHT, WIDTH)


def _enliven(network: MTCP) -> None:
    """Make the maps of a fresh network vary as those of a trained one do, so that errors show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1  # the next batch's statistics are the running ones
    with torch.no_grad():
        network.train()(torch.randint(0, 256, (4, 3, HEIGHT, WIDTH)).float())
