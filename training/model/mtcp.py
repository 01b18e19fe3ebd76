"""MT-CP: shared backbone, task decoders, coherence fusion, trace-back, heads (arXiv 2412.03179, Sec. 3)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from training.model.agreement import PartsOnPeople
from training.model.backbone import Backbone
from training.model.cfm import CFM
from training.model.confidence import ConfidenceHeads
from training.model.config import ModelConfig
from training.model.decoder import TaskDecoders
from training.model.dfpn import DFPN
from training.model.heads import Heads
from training.model.layouts import stack_branches
from training.model.mixed_precision import keep_in_float
from training.model.network import Network, Predictions
from training.model.srm import SRM
from training.tasks import Task


class Branches(nn.Module):
    """What belongs to the tasks, computed for all of them together: decoders, DFPN, CFM, SRMs and heads."""

    def __init__(self, config: ModelConfig, shared_channels: int) -> None:
        super().__init__()
        tasks = config.task_list()
        count, width = len(tasks), config.decoder.channels
        self.decoder = TaskDecoders(count, shared_channels, config.decoder)
        self.dfpn = DFPN(count, self.decoder.channels, width, config.decoder.fusion)
        self.cfm = CFM(count, width, config.coherence) if config.cfm else None
        states = [width, *self.decoder.channels[::-1]] if config.srm else []
        self.srms = nn.ModuleList(
            SRM(count, state, stage, width, last=stage == states[-1]) for state, stage in pairwise(states)
        )
        self.head = Heads(width, tasks, config)
        self.agreement = PartsOnPeople(tasks) if config.parts_on_people else None
        self.confidence = ConfidenceHeads(width, tasks, config.confident()) if config.confidence else None
        self._from_fused = config.predict_from_fused and config.srm
        auxiliary = max(len(self.srms) - 1, 0) + self._from_fused
        self.auxiliary = nn.ModuleList(Heads(width, tasks, config) for _ in range(auxiliary))

    def _trace_back(self, fused: Tensor, stages: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """H and the stage features (finest first) -> (final features, intermediate ones in training)."""
        intermediate = [fused] if self._from_fused else []
        pred: Tensor | None = fused
        state: Tensor | None = fused
        for index, (srm, stage) in enumerate(zip(self.srms, reversed(stages), strict=False)):
            if index and pred is not None:
                intermediate.append(pred)
            pred, state = srm(state, stage)
        assert pred is not None
        return pred, intermediate if self.training else []

    def forward(self, shared: Tensor) -> Predictions:
        """R [B, C, H/4, W/4] -> predictions of all tasks."""
        stages = self.decoder(shared)
        fused, cosine = self.dfpn(stages), None
        if self.cfm is not None:
            fused, cosine = self.cfm(fused)
        features, intermediate = self._trace_back(fused, stages)
        joint = self.head(features)
        final = self.head.by_name(joint)
        if self.agreement is not None and not self.training:
            final = self.agreement(final)
        sure = {}
        if self.confidence is not None and not self.training:
            sure = self.confidence(features, final)
        levels = [head(x) for head, x in zip(self.auxiliary, intermediate, strict=False)]
        named = [self.head.by_name(level) for level in levels]
        return Predictions(
            final=final,
            intermediate={task.name: [level[task.name] for level in named] for task in self.head.tasks}
            if self.training
            else {},
            cosine=cosine,
            confidence=sure,
            joint=joint,
            joint_intermediate=levels,
        )


class MTCP(Network):
    """The complete network for any set of tasks.

    ``forward`` takes RGB [B, 3, H, W] in 0..255 (uint8 or float) and normalises it itself. Auxiliary heads
    and the cosine projection run in training mode only. Weights of a version that had a module for each
    task's branch load as well.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tasks = config.task_list()
        self.backbone = Backbone(config.backbone)
        keep_in_float(self.backbone)
        self.branches = Branches(config, self.backbone.channels)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        stack_branches(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def encode(self, images: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in 0..255 -> the shared representation R [B, C, H/4, W/4]."""
        shared: Tensor = self.backbone(images)
        return shared

    def decode(self, shared: Tensor) -> Predictions:
        """R [B, C, H/4, W/4] -> predictions of all tasks."""
        predictions: Predictions = self.branches(shared)
        return predictions

    @property
    def confident(self) -> list[Task]:
        """See :class:`Network`."""
        return [] if self.branches.confidence is None else [*self.branches.confidence.tasks]

    @property
    def image_encoder(self) -> nn.Module:
        """The model of transformers or timm behind the pixel decoder."""
        encoder: nn.Module = self.backbone.encoder.encoder
        return encoder

    def output_bias(self, task: str) -> Tensor:
        """See :class:`Network`."""
        names = [known.name for known in self.tasks]
        return self.branches.head.layers()[1][names.index(task)]

    def recomputable(self) -> Iterator[nn.Module]:
        """The stages of the task decoders."""
        yield from self.branches.decoder.stages
