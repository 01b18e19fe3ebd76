"""Nothing of a step goes between host and device, and nothing depends on values, without a GPU at hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.training.tiny import tiny_model
from training.model import MTCP, ModelConfig, Predictions

SIZES = [(64, 96), (72, 56)]


class NoWord(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what waits for a device, and with ``host`` unset every tensor that is on the host."""

    def __init__(self, host: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.host = host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _depends_on_values(func, args):
            raise AssertionError(f"{func} depends on values")
        result = func(*args, **(kwargs or {}))
        for tensor in [] if self.host else tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                raise AssertionError(f"{func} has a tensor on the host, {tuple(tensor.shape)}")
        return result


def _depends_on_values(func: Any, args: Any) -> bool:
    if func is torch.ops.aten.index.Tensor:
        return any(index.dtype in (torch.bool, torch.uint8) for index in args[1] if index is not None)
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


@pytest.fixture
def device() -> Iterator[torch.device]:
    """A GPU that computes nothing but shapes and devices."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda")


def configs() -> Iterator[ModelConfig]:
    tiny = tiny_model()
    for encoder in ("tf_efficientnet_lite0", "swin_small"):
        backbone = tiny.backbone.model_copy(update={"encoder": encoder, "drop_path": 0.1})
        yield tiny.model_copy(update={"backbone": backbone})
    yield ModelConfig.model_validate({"tasks": {"depth": None, "normals": None}, "backbone": tiny.backbone})


def total(predictions: Predictions) -> Tensor:
    maps = [*predictions.final.values(), *predictions.joint_intermediate]
    assert predictions.cosine is not None
    return torch.stack([x.square().mean() for x in maps]).sum() + predictions.cosine


@pytest.mark.parametrize("config", [*configs()], ids=["Lite0", "Swin-S", "paper's branches"])
def test_the_forward_pass_says_nothing_to_the_host(
    config: ModelConfig, request: pytest.FixtureRequest
) -> None:
    with torch.device("meta"):
        network = MTCP(config).train()
    device = request.getfixturevalue("device")
    network.to_empty(device=device)
    for size in SIZES:
        images = torch.zeros(2, 3, *size, device=device)
        with NoWord():
            total(network.decode(network.encode(images)))


def test_the_backward_pass_depends_on_no_values() -> None:
    network = MTCP(next(configs())).train()
    with NoWord(host=True):
        total(network(torch.zeros(2, 3, 64, 96))).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in network.branches.parameters())


def test_the_guard_sees_what_it_should(device: torch.device) -> None:
    x = torch.zeros(3, device=device)
    for broken in (
        lambda: x.sum().item(),
        lambda: x.nonzero(),
        lambda: x[x > 0],
        lambda: torch.zeros(3, device="cpu").to(device),
        lambda: x.cpu(),
    ):
        with pytest.raises(AssertionError, match=r"depends on values|on the host"), NoWord():
            broken()


def test_encoding_and_decoding_compile_without_a_graph_break() -> None:
    torch.manual_seed(0)
    network = MTCP(tiny_model()).train()
    images = torch.rand(2, 3, 64, 96) * 255
    shared = network.encode(images).detach()
    expected = network.decode(shared).final
    torch.compiler.reset()
    encode, decode = (
        torch.compile(part, fullgraph=True, backend="eager") for part in (network.encode, network.decode)
    )
    torch.testing.assert_close(encode(images), shared, rtol=1e-4, atol=1e-5)
    leaf = shared.clone().requires_grad_()
    found = decode(leaf)
    assert isinstance(found, Predictions)
    assert found.joint is not None
    for name, value in expected.items():
        torch.testing.assert_close(found.final[name], value, rtol=1e-4, atol=1e-4)
    found.joint.sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad.any()
