"""Encoders of timm in mixed precision on a CPU."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.model.config import BackboneConfig
from training.model.encoders import TimmEncoder, build_encoder

CONFIG = BackboneConfig(encoder="tf_efficientnet_lite0", freeze_norm=True)


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types that convolutions, forward and backward, compute in; depthwise ones apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.depthwise: set[torch.dtype] = set()
        self.others: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
            backward = func is torch.ops.aten.convolution_backward.default
            images, groups = args[1 if backward else 0], args[-2 if backward else -1]
            (self.depthwise if groups > 1 else self.others).add(images.dtype)
        return func(*args, **(kwargs or {}))


def test_depthwise_convolutions_stay_in_float32() -> None:
    encoder = build_encoder(CONFIG).train()
    with _Convolutions() as found:
        with torch.autocast("cpu", torch.bfloat16):
            levels = encoder(torch.randn(1, 3, 32, 32))
        torch.autograd.backward([level.float().sum() for level in levels])
    assert found.depthwise == {torch.float32}
    assert found.others == {torch.bfloat16}
    assert {level.dtype for level in levels} == {torch.bfloat16}


@pytest.mark.parametrize("mixed", [False, True])
def test_a_copy_computes_with_its_own_weights(mixed: bool) -> None:
    """An average of weights is a copy of the network."""
    encoder = build_encoder(CONFIG).eval()
    assert isinstance(encoder, TimmEncoder)
    copy, images = deepcopy(encoder), torch.randn(1, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        before = copy(images)
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
        for was, now in zip(before, copy(images), strict=True):
            assert torch.equal(was, now)
            assert was.abs().max() > 0
