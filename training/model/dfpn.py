"""Dynamic feature pyramid fusion of the tasks' stages (Sec. 3.2, after Liang et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.stacked import by_task, pointwise


class DFPN(nn.Module):
    """1x1 laterals, top-down addition, a 3x3 convolution on the finest level, for each task.

    With ``fusion="dynamic"`` each addition is weighted by learned, softmax-normalised level weights scaled so
    that equal weights reproduce the plain sum.
    """

    def __init__(self, tasks: int, in_channels: list[int], channels: int, fusion: str) -> None:
        super().__init__()
        self.tasks = tasks
        self.lateral = nn.ModuleList(pointwise(tasks, count, channels) for count in in_channels)
        self.output = nn.Conv2d(tasks * channels, tasks * channels, 3, padding=1, groups=tasks)
        dynamic = fusion == "dynamic"
        self.weights = nn.Parameter(torch.zeros(tasks, len(in_channels) - 1, 2)) if dynamic else None

    def _fuse(self, here: Tensor, above: Tensor, index: int) -> Tensor:
        if self.weights is None:
            return here + above
        level = (2 * self.weights[:, index].softmax(-1)).view(1, -1, 1, 1, 1, 2)
        fused: Tensor = by_task(here, self.tasks) * level[..., 0] + by_task(above, self.tasks) * level[..., 1]
        return fused.flatten(1, 2)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Stage features, finest first -> X [B, T*channels, H/4, W/4]."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        fused = levels[-1]
        for index in reversed(range(len(levels) - 1)):
            above = functional.interpolate(fused, size=levels[index].shape[-2:], mode="nearest")
            fused = self._fuse(levels[index], above, index)
        output: Tensor = self.output(fused)
        return output
