"""The standard multi-task baseline: one dilated encoder for all tasks, a DeepLabv3 head for each.

Hard parameter sharing as in MTAN's and LibMTL's benchmarks and in the experiments of impartial auxiliary
learning: nothing but the encoder's last features is shared, so single methods of balancing can be compared.
"""

from collections.abc import Iterator
from typing import cast

import timm
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from training.model.config import DeepLabConfig
from training.model.encoders import PixelNorm
from training.model.mixed_precision import keep_in_float
from training.model.network import Network, Predictions
from training.tasks import Task

OUTPUT_STRIDE = 8
"""Later stages of the encoder are dilated where they would have halved the map once more."""
ATROUS_RATES = (12, 24, 36)
"""Of the three dilated 3x3 convolutions at this stride (Chen et al., arXiv 1706.05587, Sec. 4.1)."""


class _Branch(nn.Module):
    """torchvision's DeepLabv3 head: a pyramid (1x1, 3x3 at three rates, image pooling), 3x3 and 1x1."""

    def __init__(self, channels: int, task: Task) -> None:
        super().__init__()
        self.aspp, *rest = DeepLabHead(channels, task.channels, ATROUS_RATES)
        self.head = nn.Sequential(*rest)

    def forward(self, shared: Tensor) -> Tensor:
        """[B, C, H/8, W/8] -> raw logits, metres or un-normalised normals [B, task.channels, H/8, W/8]."""
        maps: Tensor = self.head(self.aspp(shared))
        return maps


class DeepLab(Network):
    """One encoder, a DeepLabv3 head a task; no intermediate predictions and no coherence term.

    The heads' image pooling is normalised over the batch: training needs at least two images a process.

    Raises:
        ValueError: an encoder that timm does not know or cannot dilate to stride 8.
    """

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.task_list()
        self.normalise = PixelNorm(config.pixel_mean, config.pixel_std)
        self.encoder = dilated_encoder(config.encoder)
        keep_in_float(self.encoder)
        self.branches = nn.ModuleDict(
            {task.name: _Branch(int(self.encoder.num_features), task) for task in self.tasks}  # type: ignore[arg-type]
        )

    @property
    def image_encoder(self) -> nn.Module:
        """The timm model."""
        return self.encoder

    def encode(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in 0..255 -> the encoder's last features [B, C, H/8, W/8]."""
        features: Tensor = self.encoder.forward_features(self.normalise(images))  # type: ignore[operator]
        return features

    def decode(self, shared: Tensor) -> Predictions:
        """[B, C, H/8, W/8] -> predictions of all tasks, at the same size."""
        return Predictions(final={name: branch(shared) for name, branch in self.branches.items()})

    def output_bias(self, task: str) -> Tensor:
        """See :class:`Network`."""
        bias = cast(nn.Conv2d, cast(_Branch, self.branches[task]).head[-1]).bias
        assert bias is not None
        return bias

    def recomputable(self) -> Iterator[nn.Module]:
        """Pyramids and heads."""
        for branch in self.branches.values():
            yield from branch.children()


def dilated_encoder(name: str) -> nn.Module:
    """The timm model ``name`` without its classifier, at stride `OUTPUT_STRIDE`, randomly initialised.

    Raises:
        ValueError: timm does not know it, or it cannot be dilated.
    """
    if not timm.is_model(name):
        raise ValueError(f"unknown encoder {name!r}: kind deeplab takes a name of timm.list_models()")
    try:
        encoder: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=0, global_pool="", output_stride=OUTPUT_STRIDE
        )
    except TypeError as error:
        raise ValueError(f"encoder {name!r} cannot be dilated; take a convolutional one: {error}") from error
    return encoder
