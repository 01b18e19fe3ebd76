"""The surface that a depth map draws: its normals, and how far they are from other normals.

A camera is a pair of focal lengths, over the width and over the height of its image. Its axis goes through
the centre. A crop stands for a camera that came closer (see `training.data.transforms.RandomView`), so it
keeps the camera of the whole image; that rays of a crop off the centre are others is left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STEP = 0.1
"""Relative change of depth from one neighbour of a pixel to the other beyond which they are two surfaces."""


def normals_of_depth(depth: Tensor, focal: Tensor) -> Tensor:
    """Unit normals of the surface through the points of a depth map, facing the camera.

    They are the cross product of the central differences of the points along rows and columns; pixels at the
    border take those of their neighbours.

    Args:
        depth: metres along the optical axis, [B, 1, h, w], at least 3 x 3.
        focal: [B, 2], focal lengths over width and height.

    Returns:
        [B, 3, h, w], x right, y up, z towards the camera.
    """
    height, width = depth.shape[-2:]
    x = (torch.arange(width, device=depth.device) + 0.5) / width - 0.5
    y = 0.5 - (torch.arange(height, device=depth.device) + 0.5) / height
    fx, fy = focal[:, 0, None, None, None], focal[:, 1, None, None, None]
    points = torch.cat([depth * (x / fx), depth * (y[:, None] / fy), -depth], 1)
    right = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    up = points[..., :-2, 1:-1] - points[..., 2:, 1:-1]
    normals = F.normalize(torch.linalg.cross(right, up, dim=1), dim=1, eps=1e-12)
    return F.pad(normals, (1, 1, 1, 1), mode="replicate")


def degrees_between(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """The angles between unit vectors, which ``dim`` runs along; exact for small ones, unlike the arccos."""
    return 2 * torch.atan2((one - other).norm(dim=dim), (one + other).norm(dim=dim)).rad2deg()


def smooth(depth: Tensor) -> Tensor:
    """Bool [B, 1, h, w]: pixels whose neighbours along rows and columns differ by less than `STEP`."""
    step = STEP * depth[..., 1:-1, 1:-1]
    across = (depth[..., 1:-1, 2:] - depth[..., 1:-1, :-2]).abs() < step
    along = (depth[..., 2:, 1:-1] - depth[..., :-2, 1:-1]).abs() < step
    return F.pad(across & along, (1, 1, 1, 1), value=False)


def geometry_loss(depth: Tensor, normals: Tensor, focal: Tensor, labels: Tensor | None = None) -> Tensor:
    """Mean of 1 - cos between the normals of predicted depth and what is known or predicted of normals.

    Depth follows: where there is a label it counts, elsewhere the prediction of the normals head, which gets
    no gradient, for it is the better of the two. Steps between surfaces are left out.

    Args:
        depth: the depth head's metres, float32 [B, 1, h, w].
        normals: the normals head's vectors, [B, 3, h, w].
        focal: [B, 2], see `normals_of_depth`.
        labels: normals [B, 3, H, W], (0, 0, 0) invalid; None: there are none.
    """
    target = F.normalize(normals.detach(), dim=1, eps=1e-6)
    if labels is not None:
        known = F.interpolate(labels, depth.shape[-2:], mode="nearest-exact")
        target = torch.where(known.abs().amax(1, keepdim=True) > 0, known, target)
    cosine = (normals_of_depth(depth, focal) * target).sum(1, keepdim=True)
    valid = smooth(depth.detach())
    return ((1 - cosine) * valid).sum() / valid.sum().clamp_min(1)
