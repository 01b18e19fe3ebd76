"""Shifted windows: padded first, then rolled."""

from contextlib import nullcontext

import pytest
import torch

from tests.training.model.reference import Block
from training.model.exporting import as_exported
from training.model.stacked import TaskLayerNorm, TaskLinear, after_norm
from training.model.windows import PatchMerging, SwinBlock


@pytest.mark.parametrize("height", [14, 15, 18, 20])
def test_the_first_row_does_not_see_the_last(height: int) -> None:
    torch.manual_seed(0)
    block = SwinBlock(1, 8, heads=2, window=7, shift=3, mlp_ratio=2.0).double()
    tokens = torch.randn(1, 1, height, 14, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(tokens)[0, 0, 0].square().sum(), tokens)
    seen = gradient.abs().amax((0, 1, 3, 4)) > 1e-30
    assert seen.nonzero().flatten().tolist() == [0, 1, 2]
    columns = gradient.abs().amax((0, 1, 2, 4)) > 1e-30
    assert columns.all()


def test_the_first_column_does_not_see_the_last() -> None:
    torch.manual_seed(0)
    block = SwinBlock(1, 8, heads=2, window=7, shift=3, mlp_ratio=2.0).double()
    tokens = torch.randn(1, 1, 14, 20, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(tokens)[0, 0, :, 0].square().sum(), tokens)
    assert (gradient.abs().amax((0, 1, 2, 4)) > 1e-30).nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("padding", range(7))
def test_it_is_pad_roll_partition_attend_reverse_crop(padding: int, shift: int, exported: bool) -> None:
    torch.manual_seed(padding)
    plain = Block(
        dim=8,
        input_resolution=(7, 7),
        num_heads=2,
        window_size=7,
        shift_size=shift,
        always_partition=True,
        dynamic_mask=True,
    ).double()
    torch.nn.init.normal_(plain.attn.relative_position_bias_table)
    for norm in (plain.norm1, plain.norm2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    block = SwinBlock(1, 8, heads=2, window=7, shift=shift, mlp_ratio=4.0).double()
    weights = {
        name.replace("mlp.", "").replace("relative_position_bias_table", "positions"): value
        for name, value in plain.state_dict().items()
    }
    matrices = {name: value.T[None] if value.ndim == 2 else value for name, value in weights.items()}
    matrices["attn.positions"] = weights["attn.positions"].T
    block.load_state_dict(matrices)
    tokens = torch.randn(2, 21 - padding, 14 + padding, 8, dtype=torch.float64)
    with torch.no_grad(), as_exported() if exported else nullcontext():
        found, expected = block(tokens[None])[0], plain(tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_tasks_have_their_own_weights_and_start_like_linear_layers() -> None:
    torch.manual_seed(0)
    block = SwinBlock(3, 64, heads=2, window=4, shift=2, mlp_ratio=4.0)
    tokens = torch.randn(1, 2, 9, 11, 64)
    with torch.no_grad():
        first, second, third = block(tokens)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    for layer in (block.attn.qkv, block.fc1, block.fc2):
        plain = torch.nn.Linear(*layer.weight.shape[1:])
        for ours, theirs in ((layer.weight, plain.weight), (layer.bias, plain.bias)):
            assert ours is not None
            torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.15, atol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_shift_and_bias_are_linear_in_a_raised_token(bias: bool) -> None:
    torch.manual_seed(0)
    norm, linear = TaskLayerNorm(3, 16).double(), TaskLinear(3, 16, 24, bias).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    tokens = 5 * torch.randn(3, 2, 4, 5, 16, dtype=torch.float64) + 3
    with torch.no_grad():
        expected = linear(norm(tokens))
        with as_exported():
            torch.testing.assert_close(after_norm(norm, linear, tokens), expected, rtol=0, atol=1e-12)
            of_all = after_norm(norm, linear, tokens[:1])
        torch.testing.assert_close(of_all, linear(norm(tokens[:1])), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(6, 8), (7, 8), (6, 9), (7, 9)])
def test_merging_is_the_same_in_a_graph(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    merging = PatchMerging(2, 8).double()
    torch.nn.init.normal_(merging.norm.weight)
    torch.nn.init.normal_(merging.norm.bias)
    tokens = torch.randn(2, 3, *size, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = merging(tokens)
        with as_exported():
            torch.testing.assert_close(merging(tokens), expected, rtol=0, atol=1e-12)
