"""MT-CP: shared backbone, task decoders, coherence fusion, trace-back, heads (arXiv 2412.03179, Sec. 3)."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from training.model.backbone import Backbone
from training.model.cfm import CFM, Gate
from training.model.config import ModelConfig
from training.model.decoder import TaskDecoder
from training.model.dfpn import DFPN
from training.model.heads import Head
from training.model.network import Network, Predictions
from training.model.srm import SRM
from training.tasks import Task


class _Branch(nn.Module):
    """Everything that belongs to one task: decoder, DFPN, CFM, SRMs and heads."""

    def __init__(self, config: ModelConfig, task: Task, shared_channels: int) -> None:
        super().__init__()
        width = config.decoder.channels
        self.decoder = TaskDecoder(shared_channels, config.decoder)
        self.dfpn = DFPN(self.decoder.channels, width, config.decoder.fusion)
        self.cfm = CFM(width, len(config.tasks) - 1, config.coherence) if config.cfm else None
        stages = self.decoder.channels[::-1] if config.srm else []
        states = [width, *stages[:-1]]
        self.srms = nn.ModuleList(
            SRM(state, stage, width, last=index == len(stages) - 1)
            for index, (state, stage) in enumerate(zip(states, stages, strict=False))
        )
        self.head = Head(width, task, config)
        auxiliary = max(len(stages) - 1, 0) + (config.predict_from_fused and config.srm)
        self.auxiliary = nn.ModuleList(Head(width, task, config) for _ in range(auxiliary))
        self._from_fused = config.predict_from_fused and config.srm

    def trace_back(self, fused: Tensor, stages: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """H_i and the stage features (finest first) -> (final features, intermediate features)."""
        intermediate = [fused] if self._from_fused else []
        state: Tensor | None = fused
        pred = fused
        for index, (srm, stage) in enumerate(zip(self.srms, reversed(stages), strict=False)):
            if index:
                intermediate.append(pred)
            pred, state = srm(state, stage)
        return pred, intermediate


class MTCP(Network):
    """The complete network for any set of tasks.

    ``forward`` takes RGB [B, 3, H, W] in 0..255 (uint8 or float) and normalises it itself. Auxiliary heads
    and the cosine projection run in training mode only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.task_list()
        self.backbone = Backbone(config.backbone)
        self.branches = nn.ModuleDict(
            {task.name: _Branch(config, task, self.backbone.channels) for task in self.tasks}
        )
        shared = config.cfm and config.coherence.shared_gates
        width = config.decoder.channels
        self.gates = nn.ModuleDict({task.name: Gate(width) for task in self.tasks}) if shared else None

    def encode(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in 0..255 -> the shared representation R [B, C, H/4, W/4]."""
        shared: Tensor = self.backbone(images)
        return shared

    def decode(self, shared: Tensor) -> Predictions:
        """R [B, C, H/4, W/4] -> predictions of all tasks."""
        branches = {name: cast(_Branch, branch) for name, branch in self.branches.items()}
        stages = {name: branch.decoder(shared) for name, branch in branches.items()}
        fused = {name: branch.dfpn(stages[name]) for name, branch in branches.items()}
        cosines = []
        if self.config.cfm:
            plain = fused
            sources = {name: self.gates[name](x) for name, x in plain.items()} if self.gates else plain
            fused = {}
            for name, branch in branches.items():
                assert branch.cfm is not None
                others = [x for other, x in sources.items() if other != name]
                fused[name], cosine = branch.cfm(plain[name], others)
                if cosine is not None:
                    cosines.append(cosine)
        predictions = Predictions(final={}, cosine=torch.stack(cosines).mean() if cosines else None)
        for name, branch in branches.items():
            features, intermediate = branch.trace_back(fused[name], stages[name])
            predictions.final[name] = branch.head(features)
            if self.training:
                predictions.intermediate[name] = [
                    head(x) for head, x in zip(branch.auxiliary, intermediate, strict=True)
                ]
        return predictions

    @property
    def image_encoder(self) -> nn.Module:
        """The model of transformers or timm behind the pixel decoder."""
        encoder: nn.Module = self.backbone.encoder.encoder
        return encoder

    def last_layer(self, task: str) -> nn.Conv2d:
        """See :class:`Network`."""
        return cast(nn.Conv2d, cast(_Branch, self.branches[task]).head.layers[-1])

    def recomputable(self) -> Iterator[nn.Module]:
        """The stages of the task decoders."""
        for branch in self.branches.values():
            yield from cast(_Branch, branch).decoder.stages
