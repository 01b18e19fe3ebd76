"""Dynamic feature pyramid fusion of a task's stages (Sec. 3.2, after Liang et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DFPN(nn.Module):
    """1x1 laterals, top-down addition, a 3x3 convolution on the finest level.

    With ``fusion="dynamic"`` each addition is weighted by learned, softmax-normalised level weights scaled so
    that equal weights reproduce the plain sum.
    """

    def __init__(self, in_channels: list[int], channels: int, fusion: str) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.output = nn.Conv2d(channels, channels, 3, padding=1)
        self.weights = nn.Parameter(torch.zeros(len(in_channels) - 1, 2)) if fusion == "dynamic" else None

    def forward(self, features: list[Tensor]) -> Tensor:
        """Stage features, finest first -> X_t [B, channels, H/4, W/4]."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        fused = levels[-1]
        for index in reversed(range(len(levels) - 1)):
            above = functional.interpolate(fused, size=levels[index].shape[-2:], mode="nearest")
            if self.weights is None:
                fused = levels[index] + above
            else:
                here, there = 2 * self.weights[index].softmax(0)
                fused = here * levels[index] + there * above
        output: Tensor = self.output(fused)
        return output
