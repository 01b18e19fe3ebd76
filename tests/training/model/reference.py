"""The task branches written out plainly: one module a task, one task after another, as the paper tells it."""

from typing import cast

import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional

from training.model import ModelConfig, Predictions
from training.model.config import CoherenceConfig, DecoderConfig
from training.tasks import Task


class Block(SwinTransformerBlock):  # type: ignore[misc]
    """timm's block with its own order of steps: pad, roll, partition, attend, reverse, roll back, crop."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        (window, _), (shift, _) = self.window_size, self.shift_size
        x = functional.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        padded = x.shape[1:3]
        x = x.roll((-shift, -shift), (1, 2))
        windows = window_partition(x, self.window_size).flatten(1, 2)
        mask = self._mask(*padded).to(x) if shift else None
        windows = self.attn(windows, mask).unflatten(1, self.window_size)
        x = window_reverse(windows, self.window_size, *padded).roll((shift, shift), (1, 2))
        return x[:, :height, :width]

    def _mask(self, height: int, width: int) -> Tensor:
        """Two positions of a window attend to each other where neither border lies between them."""
        (window, _), (shift, _) = self.window_size, self.shift_size

        def came(position: int, side: int) -> bool:
            return bool(position >= side - shift)

        masks = []
        for top in range(0, height, window):
            for left in range(0, width, window):
                places = [(top + y, left + x) for y in range(window) for x in range(window)]
                sides = [(came(y, height), came(x, width)) for y, x in places]
                masks.append([[0.0 if a == b else -100.0 for b in sides] for a in sides])
        return torch.tensor(masks)


class Stage(nn.Module):
    def __init__(self, config: DecoderConfig, index: int) -> None:
        super().__init__()
        channels = config.channels * 2**index
        self.merge = PatchMerging(channels // 2, channels) if index else nn.Identity()
        self.blocks = nn.Sequential(
            *(
                Block(
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


class Decoder(nn.Module):
    def __init__(self, in_channels: int, config: DecoderConfig) -> None:
        super().__init__()
        self.channels = [config.channels * 2**index for index in range(3)]
        same = in_channels == config.channels
        self.project = nn.Identity() if same else nn.Conv2d(in_channels, config.channels, 1)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(3))

    def forward(self, shared: Tensor) -> list[Tensor]:
        tokens = self.project(shared).permute(0, 2, 3, 1)
        features = []
        for stage in self.stages:
            tokens = stage.blocks(stage.merge(tokens))  # type: ignore[operator]
            features.append(stage.norm(tokens).permute(0, 3, 1, 2))  # type: ignore[operator]
        return features


class DFPN(nn.Module):
    def __init__(self, in_channels: list[int], channels: int, fusion: str) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.output = nn.Conv2d(channels, channels, 3, padding=1)
        self.weights = nn.Parameter(torch.zeros(2, 2)) if fusion == "dynamic" else None

    def forward(self, features: list[Tensor]) -> Tensor:
        fine, middle, fused = (conv(feature) for conv, feature in zip(self.lateral, features, strict=True))
        for index, level in ((1, middle), (0, fine)):
            here, there = (1.0, 1.0) if self.weights is None else 2 * self.weights[index].softmax(0)
            fused = here * level + there * functional.interpolate(
                fused, size=level.shape[-2:], mode="nearest"
            )
        return cast(Tensor, self.output(fused))


class CBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Sequential(
            nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1, momentum=0.01)
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.channel(x.mean((2, 3))) + self.channel(x.flatten(2).max(-1).values)
        x = x * gate.sigmoid()[:, :, None, None]
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        return cast(Tensor, x * self.spatial(pooled).sigmoid())


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.conv(x).sigmoid())


class CFM(nn.Module):
    def __init__(self, channels: int, others: int, config: CoherenceConfig) -> None:
        super().__init__()
        mixed = config.mixed_channels or channels * others
        self.config = config
        self.gates = None if config.shared_gates else nn.ModuleList(Gate(channels) for _ in range(others))
        self.mix = nn.Sequential(nn.Conv2d(channels * others, mixed, 1), nn.ReLU())
        self.main = nn.Sequential(CBAM(channels), nn.BatchNorm2d(channels))
        if config.main_relu:
            self.main.append(nn.ReLU())
        self.query = nn.Sequential(CBAM(mixed), nn.BatchNorm2d(mixed), nn.ReLU())
        self.key = nn.Sequential(CBAM(mixed), nn.BatchNorm2d(mixed), nn.ReLU())
        self.out = nn.Sequential(CBAM(channels), nn.BatchNorm2d(channels))
        self.project = nn.Conv2d(mixed, channels, 1)

    def forward(self, main: Tensor, others: list[Tensor]) -> tuple[Tensor, Tensor]:
        if self.gates is not None:
            others = [gate(x) for x, gate in zip(others, self.gates, strict=True)]
        mixed = self.mix(torch.cat(others, 1))
        stride = self.config.kv_stride
        pooled, pooled_main = (
            x if stride == 1 else functional.avg_pool2d(x, stride, ceil_mode=True) for x in (mixed, main)
        )
        a1, a2, m = self.query(mixed).flatten(2), self.key(pooled).flatten(2), self.main(pooled_main)
        scale = 1 if self.config.affinity_scale == "one" else a1.shape[1] ** -0.5
        affinity = (scale * a1.transpose(1, 2) @ a2).softmax(-1)  # rows: positions of a1
        fused = self.out((m.flatten(2) @ affinity.transpose(1, 2)).view(main.shape))
        cosine = 1 - functional.cosine_similarity(m, self.project(pooled), dim=1)
        return fused + main if self.config.residual else fused, cosine.mean()


def pixelwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class SRM(nn.Module):
    def __init__(self, state: int, stage: int, channels: int, last: bool) -> None:
        super().__init__()
        self.attend_state = CBAM(state)
        self.attend_stage = CBAM(stage)
        self.pred = pixelwise(state + stage, channels)
        self.back = None if last else pixelwise(state + stage, stage)

    def forward(self, state: Tensor, stage: Tensor) -> tuple[Tensor, Tensor | None]:
        state = functional.interpolate(self.attend_state(state), stage.shape[-2:], mode="bilinear")
        joined = torch.cat([state, self.attend_stage(stage)], 1)
        return self.pred(joined), None if self.back is None else self.back(joined)


class Head(nn.Module):
    def __init__(self, channels: int, task: Task, config: ModelConfig) -> None:
        super().__init__()
        hidden = channels // 2 if task.kind == "depth" else channels
        self.layers = nn.Sequential(*pixelwise(channels, hidden), nn.Conv2d(hidden, task.channels, 1))
        self.softplus = task.kind == "depth" and config.depth_activation == "softplus"
        self.facing = task.kind == "normals" and config.normals_facing

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        if self.facing:
            return torch.cat([x[:, :2], x[:, 2:].abs()], 1)
        return functional.softplus(x) if self.softplus else x


class Branch(nn.Module):
    def __init__(self, config: ModelConfig, task: Task, shared_channels: int) -> None:
        super().__init__()
        width = config.decoder.channels
        self.decoder = Decoder(shared_channels, config.decoder)
        self.dfpn = DFPN(self.decoder.channels, width, config.decoder.fusion)
        self.cfm = CFM(width, len(config.tasks) - 1, config.coherence) if config.cfm else None
        states = [width, 4 * width, 2 * width] if config.srm else []
        stages = [4 * width, 2 * width, width]
        self.srms = nn.ModuleList(
            SRM(state, stage, width, last=index == 2)
            for index, (state, stage) in enumerate(zip(states, stages, strict=False))
        )
        self.head = Head(width, task, config)
        self.from_fused = config.predict_from_fused and config.srm
        auxiliary = 2 * config.srm + self.from_fused
        self.auxiliary = nn.ModuleList(Head(width, task, config) for _ in range(auxiliary))

    def trace_back(self, fused: Tensor, stages: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        intermediate = [fused] if self.from_fused else []
        pred, state = fused, fused
        for index, srm in enumerate(self.srms):
            if index:
                intermediate.append(pred)
            pred, state = srm(state, stages[2 - index])
        return pred, intermediate


class LoopedBranches(nn.Module):
    """All branches in training mode; names of parameters as in the checkpoints of that layout."""

    def __init__(self, config: ModelConfig, shared_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {task.name: Branch(config, task, shared_channels) for task in config.task_list()}
        )
        shared = config.cfm and config.coherence.shared_gates
        width = config.decoder.channels
        self.gates = nn.ModuleDict({name: Gate(width) for name in config.tasks}) if shared else None

    def forward(self, shared: Tensor) -> Predictions:
        branches = {name: cast(Branch, branch) for name, branch in self.branches.items()}
        stages = {name: branch.decoder(shared) for name, branch in branches.items()}
        fused = {name: branch.dfpn(stages[name]) for name, branch in branches.items()}
        sources = {name: self.gates[name](x) for name, x in fused.items()} if self.gates else dict(fused)
        cosines = []
        for name, branch in branches.items():
            if branch.cfm is not None:
                others = [x for other, x in sources.items() if other != name]
                fused[name], cosine = branch.cfm(fused[name], others)
                cosines.append(cosine)
        predictions = Predictions({}, cosine=torch.stack(cosines).mean() if cosines else None)
        for name, branch in branches.items():
            features, intermediate = branch.trace_back(fused[name], stages[name])
            predictions.final[name] = branch.head(features)
            predictions.intermediate[name] = [
                head(x) for head, x in zip(branch.auxiliary, intermediate, strict=True)
            ]
        return predictions
