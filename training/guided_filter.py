"""Edge-aware upsampling: predictions follow the edges of the image that they were made from.

The guided filter of He, Sun and Tang, "Guided Image Filtering" (TPAMI 2013, Eq. 14 to 16: a colour guide), as
in their "Fast Guided Filter" (arXiv 1505.00996): in a window of the coarse grid a prediction is a linear
function of the colour, and the functions are evaluated on a finer image. Two deviations, both measured in
docs/outputs.md. Their coefficients are averaged over windows once more; here they are only upsampled, which
costs less and is crisper. And the fine image is half as large as the maps, which costs a quarter and loses
nothing that can be seen.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 2
"""Of the windows, pixels of the coarse grid."""
EPSILON = 1e-3
"""What a variance of colour (0 to 1) must exceed to count as an edge, where nothing else is said."""
_ROWS, _COLUMNS = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
"""Of the elements of a symmetric 3 x 3 matrix as they are stored: rr, rg, rb, gg, gb, bb."""
_DIAGONAL = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
_COFACTORS = ([3, 4, 1, 0, 2, 0], [5, 2, 4, 5, 1, 3], [4, 1, 3, 2, 0, 1], [4, 5, 2, 2, 4, 1])
"""Elements a, b, c, d whose ab - cd are the cofactors, stored likewise."""
_WHOLE = [0, 1, 2, 1, 3, 4, 2, 4, 5]
"""All nine elements, row by row."""


def upsample(
    values: Mapping[str, Tensor],
    size: tuple[int, int],
    images: Tensor,
    epsilons: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Predictions at ``size``, their edges where those of the images are; linear in ``values``.

    Args:
        values: by name [B,C,h,w], float32, of any scale.
        size: height and width to bring them to.
        images: RGB [B,3,H,W] in 0..255.
        epsilons: by name, where it is not `EPSILON`.

    Returns:
        By name [B,C,*size], in the order of ``values``.
    """
    grids: dict[tuple[int, int], list[str]] = {}
    for name, value in values.items():
        grids.setdefault((value.shape[-2], value.shape[-1]), []).append(name)
    found: dict[str, Tensor] = {}
    for names in grids.values():  # one filter for all that share a grid
        parts = [values[name] for name in names]
        wanted = [(epsilons or {}).get(name, EPSILON) for name in names]
        channels = [part.shape[1] for part in parts]
        together = _filtered(torch.cat(parts, 1), channels, wanted, size, images)
        found.update(zip(names, torch.split(together, channels, 1), strict=True))
    return {name: found[name] for name in values}


def _filtered(
    value: Tensor, channels: list[int], epsilons: list[float], size: tuple[int, int], images: Tensor
) -> Tensor:
    """``value``, whose channels stand in groups of ``channels`` with one epsilon each, at ``size``."""
    height, width = value.shape[-2:]
    color = images.float() / 255
    fine = _shrunk(color, (max(height, size[0] // 2), max(width, size[1] // 2)))
    slopes, offset = _linear_functions(value, channels, epsilons, _shrunk(color, (height, width)))
    within = (fine.shape[-2], fine.shape[-1])
    functions = resized(torch.cat([slopes.flatten(1, 2), offset], 1), within)
    slopes, offset = torch.split(functions, [3 * value.shape[1], value.shape[1]], 1)
    result = offset + (torch.unflatten(slopes, 1, (3, -1)) * fine.unsqueeze(2)).sum(1)
    return resized(result, size)


def _linear_functions(
    value: Tensor, channels: list[int], epsilons: list[float], guide: Tensor
) -> tuple[Tensor, Tensor]:
    """Slopes [B,3,C,h,w] for the channels of ``guide`` [B,3,h,w], and offsets [B,C,h,w]."""
    count = value.shape[1]
    squares = guide[:, _ROWS] * guide[:, _COLUMNS]
    products = (guide.unsqueeze(2) * value.unsqueeze(1)).flatten(1, 2)
    means = _mean(torch.cat([guide, squares, value, products], 1))
    colour, squares, mean, products = torch.split(means, [3, 6, count, 3 * count], 1)
    covariance = squares - colour[:, _ROWS] * colour[:, _COLUMNS]
    common = torch.unflatten(products, 1, (3, -1)) - colour.unsqueeze(2) * mean.unsqueeze(1)
    parts = zip(epsilons, torch.split(common, channels, 2), strict=True)
    slopes = torch.cat([_solved(covariance, epsilon, part) for epsilon, part in parts], 2)
    return slopes, mean - (slopes * colour.unsqueeze(2)).sum(1)


def _solved(covariance: Tensor, epsilon: float, common: Tensor) -> Tensor:
    """Slopes: the inverse of ``covariance`` [B,6,h,w] plus ``epsilon``, times ``common`` [B,3,C,h,w]."""
    ridge = covariance.new_tensor(_DIAGONAL).view(1, 6, 1, 1)
    matrix = covariance + epsilon * ridge
    a, b, c, d = (matrix[:, elements] for elements in _COFACTORS)
    cofactors = a * b - c * d
    determinant = (matrix[:, :3] * cofactors[:, :3]).sum(1, keepdim=True)
    inverse = torch.unflatten((cofactors / determinant)[:, _WHOLE], 1, (3, 3)).unsqueeze(3)
    return (inverse * common.unsqueeze(1)).sum(2)


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
