"""How sure the network is of each map: one logit per task and position, that the map is right there.

Direct logistic heads on the field's criteria (`training.metrics.correctness`). They read what the prediction
heads read and what these say, and change neither: they are fitted to a network that is trained already
(`training.confidence`). The paper has none.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.exporting import exporting
from training.tasks import Kind, Task

HIDDEN = 32
"""Channels between the two layers. Without them (one layer) cross-entropy was 0.4 to 41 % higher, by task."""
LEAST = 1e-6
"""Floor of what a logarithm is taken of."""


def _labels(logits: Tensor) -> list[Tensor]:
    """Log-probability of the likeliest class."""
    return [-(logits - logits.amax(1, keepdim=True)).exp().sum(1, keepdim=True).log()]


def _depth(metres: Tensor) -> list[Tensor]:
    return [metres.clamp_min(LEAST).log()]


def _normals(vectors: Tensor) -> list[Tensor]:
    """Log of the length before it is normalised: a regression that doubts gives short vectors; and z."""
    length = vectors.norm(dim=1, keepdim=True).clamp_min(LEAST)
    return [length.log(), vectors[:, 2:] / length]


def _probability(logits: Tensor) -> list[Tensor]:
    """The logit, and how far it is from one half."""
    return [logits, logits.abs()]


EVIDENCE: dict[Kind, tuple[int, Callable[[Tensor], list[Tensor]]]] = {
    "labels": (1, _labels),
    "depth": (1, _depth),
    "normals": (2, _normals),
    "probability": (2, _probability),
}
"""What a prediction [B,C,h,w] says of itself, for each kind: how many maps, and those [B,1,h,w]."""


class ConfidenceHeads(nn.Module):
    """Features [B, T*C, h, w] and final predictions -> logits [B, S, h, w]: 1x1 conv - ReLU - 1x1 conv.

    They read all T tasks of the network and judge the S of them that are ``confident``; None: all. All share
    the hidden channels: where one map is wrong, others tend to be.
    """

    def __init__(self, channels: int, tasks: Sequence[Task], confident: Sequence[Task] | None = None) -> None:
        super().__init__()
        self.tasks = tuple(tasks if confident is None else confident)
        self._read = tuple(tasks)
        inputs = len(tasks) * channels + sum(EVIDENCE[task.kind][0] for task in tasks)
        self.hidden = nn.Conv2d(inputs, HIDDEN, 1)
        self.output = nn.Conv2d(HIDDEN, len(self.tasks), 1)

    def _evidence(self, final: Mapping[str, Tensor]) -> list[Tensor]:
        return [part for task in self._read for part in EVIDENCE[task.kind][1](final[task.name].float())]

    def inputs(self, features: Tensor, final: Mapping[str, Tensor]) -> Tensor:
        """What the layers read, [B, inputs, h, w]: the features and the `EVIDENCE` of all tasks."""
        return torch.cat([features.float(), *self._evidence(final)], 1)

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, S, h, w]."""
        result: Tensor = self.output(self.hidden(inputs).relu())
        return result

    def _exported(self, features: Tensor, final: Mapping[str, Tensor]) -> Tensor:
        """As :meth:`logits`, for a graph: the features are not copied to stand beside the evidence."""
        weight, bias = self.hidden.weight, self.hidden.bias
        count = features.shape[1]
        hidden = functional.conv2d(features, weight[:, :count], bias)
        hidden = hidden + functional.conv2d(torch.cat(self._evidence(final), 1), weight[:, count:])
        result: Tensor = self.output(hidden.relu())
        return result

    def forward(self, features: Tensor, final: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits [B, 1, h, w] by task name."""
        if exporting():
            logits = self._exported(features.float(), final)
        else:
            logits = self.logits(self.inputs(features, final))
        parts = torch.split(logits, 1, 1)
        return {task.name: part for task, part in zip(self.tasks, parts, strict=True)}
