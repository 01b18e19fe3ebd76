"""The spatial refinement module of the trace-back (Sec. 3.4, Fig. 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.model.cbam import CBAM


def _pixelwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SRM(nn.Module):
    """Refines the traced-back state with one stage of the task's decoder.

    Args:
        state: channels of the incoming state.
        stage: channels of the stage feature, and of the state handed on.
        channels: channels of the prediction features.
        last: the finest module hands nothing on.
    """

    def __init__(self, state: int, stage: int, channels: int, last: bool) -> None:
        super().__init__()
        self.attend_state = CBAM(state)
        self.attend_stage = CBAM(stage)
        self.pred = _pixelwise(state + stage, channels)
        self.back = None if last else _pixelwise(state + stage, stage)

    def forward(self, state: Tensor, stage: Tensor) -> tuple[Tensor, Tensor | None]:
        """State [B, Cs, *, *] and stage feature [B, Ck, h, w] -> (pred [B, C, h, w], back [B, Ck, h, w])."""
        state = functional.interpolate(
            self.attend_state(state), size=stage.shape[-2:], mode="bilinear", align_corners=False
        )
        joined = torch.cat([state, self.attend_stage(stage)], 1)
        return self.pred(joined), None if self.back is None else self.back(joined)
