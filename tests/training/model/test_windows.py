"""Shifted windows: padded first, then rolled."""

import pytest
import torch

from tests.training.model.reference import Block
from training.model.windows import SwinBlock


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


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("padding", range(7))
def test_it_is_pad_roll_partition_attend_reverse_crop(padding: int, shift: int) -> None:
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
    block = SwinBlock(1, 8, heads=2, window=7, shift=shift, mlp_ratio=4.0).double()
    weights = {
        name.replace("mlp.", "").replace("relative_position_bias_table", "positions"): value
        for name, value in plain.state_dict().items()
    }
    matrices = {name: value.T[None] if value.ndim == 2 else value for name, value in weights.items()}
    matrices["attn.positions"] = weights["attn.positions"].T
    block.load_state_dict(matrices)
    tokens = torch.randn(2, 21 - padding, 14 + padding, 8, dtype=torch.float64)
    with torch.no_grad():
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
