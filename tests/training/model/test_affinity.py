"""The affinity chunk by chunk: the same values and gradients, and never the whole matrix."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.operators import OperatorCount
from training.model import affinity
from training.model.affinity import attend, attend_in_chunks
from training.model.exporting import as_exported


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Elements of the largest tensor that an operator gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.elements = max(self.elements, *sizes) if sizes else self.elements
        return result


def tokens(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, 70, width, dtype=dtype).div_(width**0.5).requires_grad_() for width in (12, 12, 8)
    )
    return query, key, value


@pytest.mark.parametrize("rows", [16, 70, 1000])
def test_chunks_give_the_same_values_and_gradients(rows: int) -> None:
    whole, chunked = tokens(torch.float64), tokens(torch.float64)
    expected, found = attend(*whole, 1.7), attend_in_chunks(*chunked, 1.7, rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for result in (expected, found):
        result.square().sum().backward()  # type: ignore[no-untyped-call]
    for a, b in zip(whole, chunked, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_than_a_chunk_of_the_affinity_exists(dtype: torch.dtype) -> None:
    matrix = 2 * 3 * 70 * 70
    with Largest() as largest:  # type: ignore[no-untyped-call]
        attend_in_chunks(*tokens(dtype), 1.0, 20).float().sum().backward()  # type: ignore[no-untyped-call]
    assert largest.elements == matrix * 20 // 70
    with Largest() as largest, torch.no_grad():  # type: ignore[no-untyped-call]
        attend_in_chunks(*tokens(dtype), 1.0, 70)
    assert largest.elements == matrix


@pytest.mark.parametrize(("piece", "products"), [(2**21, 2), (3 * 9 * 70, 16), (1, 28)])
def test_a_graph_has_it_in_pieces(piece: int, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "PIECE", piece)
    with torch.no_grad():
        expected = attend(*tokens(torch.float64), 1.7)
        with as_exported(), OperatorCount() as counted:
            found = attend(*tokens(torch.float64), 1.7)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert counted.names["aten::bmm"] == products
