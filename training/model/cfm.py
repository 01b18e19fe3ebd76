"""The coherence fusion module (Sec. 3.3, Fig. 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.cbam import CBAM
from training.model.config import CoherenceConfig


def cosine_distance(main: Tensor, others: Tensor) -> Tensor:
    """Mean over pixels of 1 - cos between two feature maps [B, C, H, W]; a scalar in 0..2."""
    return (1 - functional.cosine_similarity(main.float(), others.float(), dim=1)).mean()


class Gate(nn.Module):
    """G_j = X_j * sigmoid(conv1x1(X_j)), [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gated features."""
        gated: Tensor = x * self.conv(x).sigmoid()
        return gated


class CFM(nn.Module):
    """Fuses task i with a gated concatenation of all other tasks.

    The affinity softmax_rows(a1^T a2) m^T over all positions is attention with query a1, key a2 and value m;
    it goes through ``scaled_dot_product_attention`` so that the L x L matrix need not be materialised.

    Args:
        channels: C, of every X.
        others: T - 1.
        config: the deviations from the paper. With ``shared_gates`` the others arrive gated already.
    """

    def __init__(self, channels: int, others: int, config: CoherenceConfig) -> None:
        super().__init__()
        mixed = config.mixed_channels or channels * others
        self.config = config
        self.gates = None if config.shared_gates else nn.ModuleList(Gate(channels) for _ in range(others))
        self.mix = nn.Sequential(nn.Conv2d(channels * others, mixed, 1), nn.ReLU(inplace=True))
        self.main = nn.Sequential(CBAM(channels), nn.BatchNorm2d(channels))
        if config.main_relu:
            self.main.append(nn.ReLU(inplace=True))
        self.query = nn.Sequential(CBAM(mixed), nn.BatchNorm2d(mixed), nn.ReLU(inplace=True))
        self.key = nn.Sequential(CBAM(mixed), nn.BatchNorm2d(mixed), nn.ReLU(inplace=True))
        self.out = nn.Sequential(CBAM(channels), nn.BatchNorm2d(channels))
        self.project = nn.Conv2d(mixed, channels, 1)  # for the cosine term: training only

    def _pooled(self, x: Tensor) -> Tensor:
        stride = self.config.kv_stride
        return x if stride == 1 else functional.avg_pool2d(x, stride, ceil_mode=True)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """O: [B, C, h, w] from a1 [B, D, h, w], a2 [B, D, ...] and m [B, C, ...]; positions become tokens."""
        height, width = query.shape[-2:]
        scale = 1.0 if self.config.affinity_scale == "one" else query.shape[1] ** -0.5
        q, k, v = (t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (query, key, value))
        wide, narrow = k.shape[-1], v.shape[-1]
        if torch.is_grad_enabled() and v.device.type == "cpu" and narrow < wide:
            v = functional.pad(v, (0, wide - narrow))  # the fused CPU kernel wants equal widths
        fused = functional.scaled_dot_product_attention(q, k, v, scale=scale)[..., :narrow]
        return fused.squeeze(1).transpose(1, 2).reshape(*value.shape[:2], height, width)

    def forward(self, main: Tensor, others: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """X_i and the other X_j, each [B, C, h, w] -> (H_i [B, C, h, w], cosine term; None in evaluation)."""
        if self.gates is not None:
            others = [gate(x) for x, gate in zip(others, self.gates, strict=True)]
        mixed = self.mix(torch.cat(others, 1))
        pooled = self._pooled(mixed)
        value = self.main(self._pooled(main))
        fused = self.out(self._attend(self.query(mixed), self.key(pooled), value))
        if self.config.residual:
            fused = fused + main
        return fused, cosine_distance(value, self.project(pooled)) if self.training else None
