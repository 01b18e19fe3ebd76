"""What training, export and the metrics ask of a network: one shared representation, maps of all tasks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from training.tasks import Task


@dataclass
class Predictions:
    """What a network says, before any resizing.

    ``final[task]`` is [B, task.channels, h, w], at 1/4 of the image's size from MT-CP and 1/8 from DeepLab.
    In training, ``intermediate[task]`` lists MT-CP's K auxiliary predictions (H_i, SRM 1, SRM 2; coarser
    where the stage is) and ``cosine`` is the mean coherence term. From MT-CP the maps are views of ``joint``
    [B, sum of channels, h, w], all tasks in head order, and of ``joint_intermediate``, one a level.
    """

    final: dict[str, Tensor]
    intermediate: dict[str, list[Tensor]] = field(default_factory=dict)
    cosine: Tensor | None = None
    joint: Tensor | None = None
    joint_intermediate: list[Tensor] = field(default_factory=list)


class Network(nn.Module, ABC):
    """An encoder of images and decoders of tasks, which share nothing but what the encoder gives.

    Balancing methods that look at task gradients look at those of :meth:`encode`'s result, and what they call
    the shared parameters are the ones behind it.
    """

    tasks: list[Task]

    @property
    @abstractmethod
    def image_encoder(self) -> nn.Module:
        """The classifier's trunk that published weights exist for; ``optim.encoder_lr`` is its rate."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in 0..255, uint8 or float -> the shared representation [B, C, h, w]."""

    @abstractmethod
    def decode(self, shared: Tensor) -> Predictions:
        """The shared representation [B, C, h, w] -> predictions of all tasks."""

    @abstractmethod
    def output_bias(self, task: str) -> Tensor:
        """What the last layer adds to the final maps of ``task``, [task.channels]; part of a parameter."""

    @abstractmethod
    def recomputable(self) -> Iterator[nn.Module]:
        """Parts of the task decoders whose activations may be computed again in the backward pass."""

    def forward(self, images: Tensor) -> Predictions:
        """RGB [B, 3, H, W] in 0..255 -> predictions."""
        return self.decode(self.encode(images))
