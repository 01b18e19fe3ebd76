"""Edge-aware upsampling: predictions follow the edges of the image that they were made from.

The guided filter of He, Sun and Tang, "Guided Image Filtering" (TPAMI 2013, Eq. 14 to 16: a colour guide), as
in their "Fast Guided Filter" (arXiv 1505.00996): in a window of the coarse grid a prediction is a linear
function of the colour, and the functions are evaluated on a finer image. Two deviations, both measured in
docs/outputs.md. Their coefficients are averaged over windows once more; here they are only upsampled, which
costs less and is crisper. And the fine image is half as large as the maps, which costs a quarter and loses
nothing that can be seen.
"""

from collections.abc import Mapping
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2
"""Of the windows, pixels of the coarse grid."""
EPSILON = 1e-3
"""What a variance of colour (0 to 1) must exceed to count as an edge."""


def upsample(values: Mapping[str, Tensor], size: tuple[int, int], images: Tensor) -> dict[str, Tensor]:
    """Predictions at ``size``, their edges where those of the images are; linear in ``values``.

    Args:
        values: by name [B,C,h,w], float32, of any scale.
        size: height and width to bring them to.
        images: RGB [B,3,H,W] in 0..255.

    Returns:
        By name [B,C,*size], in the order of ``values``.
    """
    grids: dict[tuple[int, int], list[str]] = {}
    for name, value in values.items():
        grids.setdefault((value.shape[-2], value.shape[-1]), []).append(name)
    found: dict[str, Tensor] = {}
    for names in grids.values():  # one filter for all that share a grid
        together = _filtered(torch.cat([values[name] for name in names], 1), size, images)
        parts = torch.split(together, [values[name].shape[1] for name in names], 1)
        found.update(zip(names, parts, strict=True))
    return {name: found[name] for name in values}


def _filtered(value: Tensor, size: tuple[int, int], images: Tensor) -> Tensor:
    height, width = value.shape[-2:]
    colour = images.float() / 255
    fine = _shrunk(colour, (max(height, size[0] // 2), max(width, size[1] // 2)))
    *slopes, offset = _linear_functions(value, _shrunk(colour, (height, width)))
    within = (fine.shape[-2], fine.shape[-1])
    result = resized(offset, within)
    for slope, channel in zip(slopes, fine.chunk(3, 1), strict=True):
        result = result + resized(slope, within) * channel
    return resized(result, size)


def _linear_functions(value: Tensor, guide: Tensor) -> list[Tensor]:
    """Slopes for the three channels of ``guide`` [B,3,h,w], and offset: each as ``value`` [B,C,h,w]."""
    channels = guide.chunk(3, 1)
    means = _mean(guide).chunk(3, 1)
    pairs = list(combinations_with_replacement(range(3), 2))
    products = _mean(torch.cat([channels[i] * channels[j] for i, j in pairs], 1)).chunk(6, 1)
    covariance = [
        product - means[i] * means[j] + (EPSILON if i == j else 0.0)
        for (i, j), product in zip(pairs, products, strict=True)
    ]
    inverse = _inverse(covariance)
    mean = _mean(value)
    common = [_mean(channel * value) - of * mean for channel, of in zip(channels, means, strict=True)]
    slopes = [sum((inverse[i][j] * common[j] for j in (1, 2)), inverse[i][0] * common[0]) for i in range(3)]
    offset = mean
    for slope, of in zip(slopes, means, strict=True):
        offset = offset - slope * of
    return [*slopes, offset]


def _inverse(upper: list[Tensor]) -> list[list[Tensor]]:
    """Inverse of symmetric 3 x 3 matrices, given and returned by element; ``upper`` row by row."""
    rr, rg, rb, gg, gb, bb = upper
    first = [gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb]
    second = [rr * bb - rb * rb, rb * rg - rr * gb]
    third = rr * gg - rg * rg
    scale = 1 / (rr * first[0] + rg * first[1] + rb * first[2])
    a, b, c, d, e, f = (element * scale for element in (*first, *second, third))
    return [[a, b, c], [b, d, e], [c, e, f]]


def _mean(values: Tensor) -> Tensor:
    """Mean over the windows, of what of them is inside."""
    side = 2 * RADIUS + 1
    rows = F.avg_pool2d(values, (side, 1), 1, (RADIUS, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, RADIUS), count_include_pad=False)


def _shrunk(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at a smaller size: means of blocks where they fit."""
    down, across = images.shape[-2] / size[0], images.shape[-1] / size[1]
    if down.is_integer() and across.is_integer():
        return F.avg_pool2d(images, (int(down), int(across)))
    return resized(images, size)


def resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """[B,C,h,w] -> [B,C,*size], bilinear (``align_corners=False``)."""
    return F.interpolate(values, size, mode="bilinear", align_corners=False)
