"""What a network computes in float32 under autocast on a CPU, beside what autocast itself keeps there."""

from types import MethodType

import torch
from torch import Tensor, nn


def keep_in_float(model: nn.Module) -> None:
    """Let parts of ``model`` that bfloat16 slows down on a CPU compute in float32 there.

    These are depthwise convolutions, whose backward pass in oneDNN takes eight times as long in bfloat16, and
    group norms, where it takes three times as long; on a GPU autocast has group norms in float32 anyway.
    What comes out has the type of what came in.
    """
    for module in model.modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        if depthwise or isinstance(module, nn.GroupNorm):
            # a method, for the copies of a module to have their own
            module.forward = MethodType(_in_float, module)


def _in_float(self: nn.Module, x: Tensor) -> Tensor:
    plain = type(self).forward
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        result: Tensor = plain(self, x)
        return result
    with torch.autocast("cpu", enabled=False):
        precise: Tensor = plain(self, x.float())
    return precise.to(x.dtype)
