"""Bilinear resizing in an exported graph, against PyTorch's own."""

import pytest
import torch
from torch.nn import functional

from benchmarks.operators import OperatorCount
from training.model.exporting import as_exported
from training.model.resizing import Resize


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (15, 24), (5, 8), (5, 6), (4, 24), (2, 3)])
def test_it_is_bilinear(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    expected = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    resize = Resize()
    assert torch.equal(resize(maps, size), expected)
    with as_exported(), OperatorCount() as counted:
        found = resize(maps, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    grows = size[0] > 4 and size[1] > 6
    assert bool(counted.names["aten::upsample_bilinear2d"]) != grows
