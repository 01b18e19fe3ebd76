"""The spatial refinement module of the trace-back (Sec. 3.4, Fig. 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.cbam import CBAM
from training.model.stacked import by_task, pointwise


def _pixelwise(tasks: int, in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        pointwise(tasks, in_channels, out_channels, bias=False),
        nn.BatchNorm2d(tasks * out_channels),
        nn.ReLU(inplace=True),
    )


class SRM(nn.Module):
    """Refines the traced-back state with one stage of the tasks' decoders.

    Args:
        tasks: T.
        state: channels of the incoming state.
        stage: channels of the stage feature, and of the state handed on.
        channels: channels of the prediction features.
        last: the finest module hands nothing on.
    """

    def __init__(self, tasks: int, state: int, stage: int, channels: int, last: bool) -> None:
        super().__init__()
        self.tasks = tasks
        self.attend_state = CBAM(tasks, state)
        self.attend_stage = CBAM(tasks, stage)
        self.pred = _pixelwise(tasks, state + stage, channels)
        self.back = None if last else _pixelwise(tasks, state + stage, stage)

    def forward(self, state: Tensor, stage: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """State [B, T*Cs, *, *], stage feature [B, T*Ck, h, w] -> pred [B, T*C, h, w], back [B, T*Ck, h, w].

        Outside of training only the last module's ``pred`` has a reader, and the others give none.
        """
        state = functional.interpolate(
            self.attend_state(state), size=stage.shape[-2:], mode="bilinear", align_corners=False
        )
        parts = [by_task(part, self.tasks) for part in (state, self.attend_stage(stage))]
        joined = torch.cat(parts, 2).flatten(1, 2)
        if self.back is None:
            return self.pred(joined), None
        return self.pred(joined) if self.training else None, self.back(joined)
