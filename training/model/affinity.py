"""The affinity of the CFM as attention, without the L x L matrix where it would not fit."""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from training.model.exporting import exporting

FUSED_WIDTH = 256
"""Widest query that the fused kernels of CUDA take in both directions."""
ROWS = 1024
"""Queries a chunk: at L = 19,200 (480x640) its affinity is 75 MiB a sample and task in fp32, not 1.37 GiB."""

PIECE = 2**21
"""Numbers of the affinity of an image in a piece of an exported graph: 8 MiB, which caches hold."""
PIECES = 16
"""At most, whatever their size: a graph has some nodes for each."""


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v of [B, T, L, D], [B, T, S, D] and [B, T, S, C] -> [B, T, L, C].

    Fused where there is a kernel for it. On a GPU, queries wider than `FUSED_WIDTH` (the paper's are 512 wide
    with three tasks) go chunk by chunk, and the backward pass computes each chunk's affinity again.
    """
    if exporting():
        return attend_in_pieces(query, key, value, scale)
    wide, narrow = key.shape[-1], value.shape[-1]
    if query.device.type != "cpu" and wide > FUSED_WIDTH:
        return attend_in_chunks(query, key, value, scale, ROWS)
    if torch.is_grad_enabled() and value.device.type == "cpu" and narrow < wide:
        value = functional.pad(value, (0, wide - narrow))  # the fused CPU kernel wants equal widths
    return functional.scaled_dot_product_attention(query, key, value, scale=scale)[..., :narrow]


def attend_in_pieces(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """As :func:`attend`, in plain operators, with a piece of the affinity at a time."""
    tasks, length = query.shape[1:3]
    pieces = min(-(-tasks * length * key.shape[-2] // PIECE), PIECES)
    rows = query.split(-(-length // pieces), -2)  # type: ignore[no-untyped-call]
    keys = scale * key.transpose(-1, -2)
    return torch.cat([(chunk @ keys).softmax(-1) @ value for chunk in rows], -2)


def attend_in_chunks(query: Tensor, key: Tensor, value: Tensor, scale: float, rows: int) -> Tensor:
    """As :func:`attend`, with no more than ``rows`` rows of the affinity at a time, in both passes."""
    parts = []
    for chunk in query.split(rows, -2):  # type: ignore[no-untyped-call]
        if torch.is_grad_enabled():
            part = checkpoint(_plain, chunk, key, value, scale, use_reentrant=False, preserve_rng_state=False)
        else:
            part = _plain(chunk, key, value, scale)
        parts.append(part)
    return torch.cat(parts, -2)


def _plain(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    affinity = (scale * query) @ key.transpose(-1, -2)
    return affinity.softmax(-1) @ value
