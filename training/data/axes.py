"""Normals of other frames brought to this project's: x right, y up, z towards the camera."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from training.data.maps import unit

Axes = Literal["right up", "left up", "right down", "left down"]
"""Where the positive x and y of a file's normals point; z is towards the camera in all of them."""
AXES: dict[Axes, tuple[float, float]] = {
    "right up": (1.0, 1.0),
    "left up": (-1.0, 1.0),
    "right down": (1.0, -1.0),
    "left down": (-1.0, -1.0),
}
"""Signs that bring x and y into this project's frame."""
_SHORTEST = 0.5
"""Vectors below this length are no normals: a grey pixel of an 8-bit file decodes to nearly nothing."""
_CLEAR = 0.6
"""Share of the slope that must agree on a sign before it is believed."""


def in_frame(vectors: Tensor, axes: Axes) -> Tensor:
    """``vectors`` [3, H, W] of the frame ``axes`` as unit normals of this project's, (0, 0, 0) where invalid.

    Invalid are what is not finite and what is shorter than half a unit.
    """
    vectors = _known(vectors)
    invalid = vectors.square().sum(0) < _SHORTEST**2
    signs = torch.tensor([*AXES[axes], 1.0])[:, None, None]
    return unit(vectors * signs).masked_fill_(invalid, 0.0)


def axes_by_depth(records: Iterable[tuple[Tensor, Tensor]]) -> Axes | None:
    """The frame of normals, as the depth of the same images says it; None if that leaves it open.

    What we see of a surface that recedes to the right faces right, and what recedes upwards faces up, so over
    many pixels the sign of a normal's component agrees with the slope of depth along that axis.

    Args:
        records: normals [3, H, W] in the unknown frame and depth [H, W] in metres (0 invalid), of one size.
    """
    votes = torch.zeros(2, 2, dtype=torch.float64)
    for normals, depth in records:
        known = depth > 0
        known = known[1:-1, 1:-1] & known[1:-1, 2:] & known[1:-1, :-2] & known[2:, 1:-1] & known[:-2, 1:-1]
        inner = _known(normals)[:2, 1:-1, 1:-1]
        recedes = torch.stack(
            [depth[1:-1, 2:] - depth[1:-1, :-2], depth[:-2, 1:-1] - depth[2:, 1:-1]]
        )  # to the right, upwards
        agreement = (inner * recedes.clamp(-0.1, 0.1) * known).flatten(1).double()  # steps are not slopes
        votes += torch.stack([agreement.clamp_min(0).sum(1), (-agreement).clamp_min(0).sum(1)])
    if (votes.amax(0) <= _CLEAR * votes.sum(0)).any():
        return None
    signs = tuple(1.0 if right else -1.0 for right in (votes[0] > votes[1]).tolist())
    return next(name for name, pair in AXES.items() if pair == signs)


def _known(vectors: Tensor) -> Tensor:
    """``vectors`` [3, H, W] as float32; one of which any component is not finite is (0, 0, 0)."""
    return vectors.float().masked_fill(~vectors.isfinite().all(0), 0.0)
