"""The spatial refinement module of the trace-back (Sec. 3.4, Fig. 4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.bilinear import resized
from training.model.cbam import CBAM
from training.model.resizing import Resize
from training.model.stacked import by_task, pointwise


class Pixelwise(nn.Sequential):
    """1x1 convolution, batch norm and ReLU over the channels of a state and of a stage feature together."""

    def __init__(self, tasks: int, in_channels: int, out_channels: int) -> None:
        super().__init__(
            pointwise(tasks, in_channels, out_channels, bias=False),
            nn.BatchNorm2d(tasks * out_channels),
            nn.ReLU(inplace=True),
        )
        self.tasks = tasks

    def upsampled(self, state: Tensor, stage: Tensor, resize: Resize) -> Tensor:
        """As of the state resized to the stage: resizing is linear and cheaper after the convolution.

        State [B, T*Cs, *, *] and stage [B, T*Ck, h, w] -> [B, T*out, h, w]. In evaluation the batch norm is
        part of the weights.
        """
        convolution, norm = self[0], self[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        weight, shift = convolution.weight, None
        if not self.training:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, shift = weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        own = state.shape[1] // self.tasks
        mixed = functional.conv2d(state, weight[:, :own], groups=self.tasks)
        mixed = resize(mixed, (stage.shape[-2], stage.shape[-1]))
        mixed = mixed + functional.conv2d(stage, weight[:, own:], shift, groups=self.tasks)
        result: Tensor = norm(mixed) if self.training else mixed
        return result.relu()


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
        self.pred = Pixelwise(tasks, state + stage, channels)
        self.resize = Resize()
        self.back = None if last else Pixelwise(tasks, state + stage, stage)

    def forward(self, state: Tensor, stage: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """State [B, T*Cs, *, *], stage feature [B, T*Ck, h, w] -> pred [B, T*C, h, w], back [B, T*Ck, h, w].

        Outside of training only the last module's ``pred`` has a reader, and the others give none.
        """
        state, feature = self.attend_state(state), self.attend_stage(stage)
        pred = self.pred if self.training or self.back is None else None
        if state.shape[-1] < stage.shape[-1] and state.shape[-2] < stage.shape[-2]:
            return (
                None if pred is None else pred.upsampled(state, feature, self.resize),
                None if self.back is None else self.back.upsampled(state, feature, self.resize),
            )
        state = resized(state, stage.shape[-2:])
        joined = torch.cat([by_task(part, self.tasks) for part in (state, feature)], 2).flatten(1, 2)
        return None if pred is None else pred(joined), None if self.back is None else self.back(joined)
