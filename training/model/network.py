"""What training, export and the metrics ask of a network: one shared representation, maps of all tasks."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor, nn

from training.tasks import Task


@dataclass
class Predictions:
    """What a network says, before any resizing.

    ``final[task]`` is [B, task.channels, h, w], at 1/4 of the image's size from MT-CP and 1/8 from DeepLab.
    In training, ``intermediate[task]`` lists MT-CP's K auxiliary predictions (H_i, SRM 1, SRM 2; coarser
    where the stage is) and ``cosine`` is the mean coherence term. From MT-CP the maps are views of ``joint``
    [B, sum of channels, h, w], all tasks in head order, and of ``joint_intermediate``, one per level.
    """

    final: dict[str, Tensor]
    intermediate: dict[str, list[Tensor]] = field(default_factory=dict)
    cosine: Tensor | None = None
    confidence: dict[str, Tensor] = field(default_factory=dict)
    """In evaluation, of each task in `Network.confident`, logits [B, 1, h, w] that its map is right there."""
    joint: Tensor | None = None
    joint_intermediate: list[Tensor] = field(default_factory=list)


class Network(nn.Module, ABC):
    """An encoder of images and decoders of tasks, which share nothing but what the encoder gives.

    Balancing methods that look at task gradients look at those of :meth:`encode`'s result, and what they call
    the shared parameters are the ones behind it.
    """

    tasks: list[Task]
    _kept: tuple[nn.Module, ...] = ()

    def train_only(self, patterns: Sequence[str]) -> None:
        """Keep all parameters as they are but those whose names contain a match of one of ``patterns``.

        Of those that are frozen already none is freed. Parts whose parameters are all kept stay in evaluation
        mode: norms do not move, and nothing is dropped.

        Raises:
            ValueError: a pattern is not a regular expression, or no parameter that could be trained fits it.
        """
        chosen: set[str] = set()
        for pattern in patterns:
            try:
                fitting = {name for name, _ in self.named_parameters() if re.search(pattern, name)}
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
            if not any(self.get_parameter(name).requires_grad for name in fitting):
                parts = ", ".join(sorted({name.partition(".")[0] for name, _ in self.named_parameters()}))
                raise ValueError(f"{pattern!r} fits no parameter that trains; their names begin with {parts}")
            chosen |= fitting
        for name, parameter in self.named_parameters():
            if name not in chosen:
                parameter.requires_grad_(False)
        self._kept += tuple(
            part
            for part in self.modules()
            if any(True for _ in part.parameters()) and not any(p.requires_grad for p in part.parameters())
        )

    def freeze_statistics(self) -> None:
        """Let batch norms use, in training as in evaluation, the running statistics that they have.

        Their scales and shifts are trained as before.
        """
        self._kept += tuple(part for part in self.modules() if isinstance(part, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> Self:
        """Switch modes; what `train_only` and `freeze_statistics` keep as it is stays in evaluation mode."""
        super().train(mode)
        for part in self._kept:
            part.eval()
        return self

    @property
    def confident(self) -> list[Task]:
        """The tasks of whose maps the network says how sure it is."""
        return []

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
