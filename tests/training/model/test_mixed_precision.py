"""What computes in float32 on a CPU in mixed precision, and that nothing else does."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.tiny import tiny_model
from training.model import build_network

CONVOLUTION = torch.ops.aten.convolution.default
CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default
GROUP_NORMS = (torch.ops.aten.native_group_norm.default, torch.ops.aten.native_group_norm_backward.default)


class _Types(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types that operators of each kind compute in, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, set[torch.dtype]] = {"depthwise": set(), "dense": set(), "group norm": set()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (CONVOLUTION, CONVOLUTION_BACKWARD):
            backward = func is CONVOLUTION_BACKWARD
            images, groups = args[1 if backward else 0], args[-2 if backward else -1]
            kind = {1: "dense", images.shape[1]: "depthwise"}.get(groups)
            if kind is not None:
                self.found[kind].add(images.dtype)
        elif func in GROUP_NORMS:
            self.found["group norm"].add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_depthwise_convolutions_and_group_norms_stay_in_float32() -> None:
    network = build_network(tiny_model()).train()
    with _Types() as types:
        with torch.autocast("cpu", torch.bfloat16):
            shared = network.encode(torch.randn(1, 3, 64, 96))
        torch.autograd.backward([shared.sum()])
    expected = {"depthwise": {torch.float32}, "group norm": {torch.float32}, "dense": {torch.bfloat16}}
    assert types.found == expected


@pytest.mark.parametrize("mixed", [False, True])
def test_a_copy_computes_with_its_own_weights(mixed: bool) -> None:
    """An average of weights is a copy of the network."""
    network = build_network(tiny_model()).eval()
    copy, images = deepcopy(network), torch.randn(1, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        before = copy.encode(images)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.GroupNorm):
                module.weight.zero_()
        assert torch.equal(before, copy.encode(images))
        assert not torch.equal(before, network.encode(images))
