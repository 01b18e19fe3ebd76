"""The task decoders: hierarchical Swin transformers on R without patch embedding (Sec. 3.2)."""

from torch import Tensor, nn
from torch.nn import functional

from training.model.config import DecoderConfig
from training.model.exporting import exporting
from training.model.stacked import TaskLayerNorm, per_task
from training.model.windows import PatchMerging, SwinBlock


class Stage(nn.Module):
    """Optional patch merging, Swin blocks (every second one shifted); normalised output."""

    def __init__(self, tasks: int, config: DecoderConfig, index: int) -> None:
        super().__init__()
        channels = config.channels * 2**index
        self.merge = PatchMerging(tasks, channels // 2) if index else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                SwinBlock(
                    tasks,
                    channels,
                    config.heads,
                    config.window,
                    shift=config.window // 2 if block % 2 else 0,
                    mlp_ratio=config.mlp_ratio,
                )
                for block in range(config.depths[index])
            )
        )
        self.norm = TaskLayerNorm(tasks, channels)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[T or 1, B, h, w, C] -> (tokens for the next stage, normalised maps [B, T*C', h', w'])."""
        tokens = self.blocks(self.merge(tokens))
        return tokens, self.norm.maps(tokens)


class TaskDecoders(nn.Module):
    """R -> three maps per task with ``channels`` x (1, 2, 4) channels at strides 4, 8, 16.

    Blocks pad to window multiples with the usual mask; odd sizes are padded at merging.
    """

    def __init__(self, tasks: int, in_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        self.tasks = tasks
        self.channels = [config.channels * 2**index for index in range(3)]
        plain = in_channels == config.channels
        self.project = None if plain else nn.Conv2d(in_channels, tasks * config.channels, 1)
        self.stages = nn.ModuleList(Stage(tasks, config, index) for index in range(3))

    def _projected(self, shared: Tensor) -> Tensor:
        """R -> the tokens of each task, [T, B, h, w, C]; [1, B, h, w, C] where they are R's own."""
        batch, _, height, width = shared.shape
        tokens = shared.permute(0, 2, 3, 1)
        if self.project is None:
            return tokens.unsqueeze(0)
        if exporting():
            columns = self.project.weight.view(self.tasks, 1, self.channels[0], -1).transpose(2, 3)
            rows = shared.flatten(2).mT.unsqueeze(0) @ columns
            assert self.project.bias is not None
            return rows.view(self.tasks, batch, height, width, -1) + per_task(
                self.project.bias, self.tasks, width
            )
        projected = functional.linear(tokens, self.project.weight.flatten(1), self.project.bias)
        return projected.view(batch, height, width, self.tasks, -1).permute(3, 0, 1, 2, 4)

    def forward(self, shared: Tensor) -> list[Tensor]:
        """R [B, C, H/4, W/4] -> stage features [B, T*C', h', w'], finest first."""
        tokens = self._projected(shared)
        features = []
        for stage in self.stages:
            tokens, feature = stage(tokens)
            features.append(feature)
        return features
