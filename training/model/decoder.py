"""The task decoder: a hierarchical Swin transformer on R without patch embedding (Sec. 3.2)."""

from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torch import Tensor, nn

from training.model.config import DecoderConfig


class _Stage(nn.Module):
    """Optional patch merging, Swin blocks (every second one shifted); normalised output."""

    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        channels = config.channels * 2**index
        self.merge = PatchMerging(channels // 2, channels) if index else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                SwinTransformerBlock(
                    dim=channels,
                    input_resolution=(config.window, config.window),
                    num_heads=config.heads,
                    window_size=config.window,
                    shift_size=config.window // 2 if block % 2 else 0,
                    always_partition=True,
                    dynamic_mask=True,
                    mlp_ratio=config.mlp_ratio,
                )
                for block in range(config.depths[index])
            )
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, h, w, C] -> (tokens for the next stage, normalised feature map [B, C', h', w'])."""
        tokens = self.blocks(self.merge(tokens))
        return tokens, self.norm(tokens).permute(0, 3, 1, 2)


class TaskDecoder(nn.Module):
    """R -> three maps with ``channels`` x (1, 2, 4) channels at strides 4, 8, 16.

    Blocks pad to window multiples with the usual mask; odd sizes are padded at merging.
    """

    def __init__(self, in_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        self.channels = [config.channels * 2**index for index in range(3)]
        self.project = (
            nn.Identity() if in_channels == config.channels else nn.Conv2d(in_channels, config.channels, 1)
        )
        self.stages = nn.ModuleList(_Stage(config, index) for index in range(3))

    def forward(self, shared: Tensor) -> list[Tensor]:
        """R [B, C, H/4, W/4] -> stage features, finest first."""
        tokens = self.project(shared).permute(0, 2, 3, 1)
        features = []
        for stage in self.stages:
            tokens, feature = stage(tokens)
            features.append(feature)
        return features
