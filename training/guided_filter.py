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

from training.bilinear import resized

RADIUS = 2
"""Of the windows, pixels of the coarse grid."""
EPSILON = 1e-3
"""What a variance of colour (0 to 1) must exceed to count as an edge, where nothing else is said."""
_COFACTORS = (
    [4, 5, 3, 7, 8, 6, 1, 2, 0],
    [8, 6, 7, 2, 0, 1, 5, 3, 4],
    [5, 3, 4, 8, 6, 7, 2, 0, 1],
    [7, 8, 6, 1, 2, 0, 4, 5, 3],
)
"""Elements a, b, c, d of a 3 x 3 matrix, row by row, whose ab - cd are the cofactors in the same order."""


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
        wanted = {name: (epsilons or {}).get(name, EPSILON) for name in names}
        names.sort(key=wanted.__getitem__)  # those of one epsilon are solved together
        channels: dict[float, int] = dict.fromkeys(wanted.values(), 0)
        for name in names:
            channels[wanted[name]] += values[name].shape[1]
        together = _filtered(
            torch.cat([values[name] for name in names], 1), dict(sorted(channels.items())), size, images
        )
        parts = torch.split(together, [values[name].shape[1] for name in names], 1)
        found.update((name, resized(part, size)) for name, part in zip(names, parts, strict=True))
    return {name: found[name] for name in values}


def _filtered(value: Tensor, channels: Mapping[float, int], size: tuple[int, int], images: Tensor) -> Tensor:
    """``value``, whose channels stand in groups of one epsilon each, on the fine image.

    What is large is neither put together nor taken apart: on a CPU that costs as much as arithmetic.

    Args:
        value: [B,C,h,w].
        channels: how many of C belong to an epsilon, in their order.
        size: as in :func:`upsample`, like ``images``.
        images: likewise.
    """
    height, width = value.shape[-2:]
    color = images.float() / 255
    fine = _shrunk(color, (max(height, size[0] // 2), max(width, size[1] // 2)))
    slopes, offset = _linear_functions(value, channels, _shrunk(color, (height, width)))
    within = (fine.shape[-2], fine.shape[-1])
    result = resized(offset, within)
    for slope, channel in zip(
        torch.split(slopes.flatten(1, 2), value.shape[1], 1), torch.split(fine, 1, 1), strict=True
    ):
        result = result + resized(slope, within) * channel
    return result


def _linear_functions(value: Tensor, channels: Mapping[float, int], guide: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes [B,3,C,h,w] for the channels of ``guide`` [B,3,h,w], and offsets [B,C,h,w]."""
    both = torch.cat([guide, value], 1)
    products = _mean((guide.unsqueeze(2) * both.unsqueeze(1)).flatten(1, 2))
    both = _mean(both)
    color, mean = torch.split(both, [3, value.shape[1]], 1)
    color = color.unsqueeze(2)
    covariance = torch.unflatten(products, 1, (3, -1)) - color * both.unsqueeze(1)
    matrix, *common = torch.split(covariance, [3, *channels.values()], 2)
    inverses = _inverses(matrix.flatten(1, 2), [*channels])
    solved = [
        (inverse.reshape(-1, 3, 3, 1, *value.shape[2:]) * part.unsqueeze(1)).sum(2)
        for inverse, part in zip(torch.split(inverses, 1, 1), common, strict=True)
    ]
    slopes = torch.cat(solved, 2)
    return slopes, mean - (slopes * color).sum(1)


def _inverses(matrices: Tensor, epsilons: list[float]) -> Tensor:
    """Inverses of symmetric 3 x 3 matrices [B,9,h,w] plus each epsilon times one, [B,E,9,h,w]."""
    one = torch.eye(3, dtype=matrices.dtype, device=matrices.device).flatten()
    ridge = matrices.new_tensor(epsilons)[:, None] * one
    matrix = (matrices.unsqueeze(1) + ridge[..., None, None]).flatten(1, 2)
    first = 9 * torch.arange(len(epsilons), device=matrices.device)[:, None]
    places = torch.tensor(_COFACTORS, device=matrices.device)[:, None] + first
    a, b, c, d = torch.split(matrix.index_select(1, places.flatten()), matrix.shape[1], 1)
    cofactors = torch.unflatten(a * b - c * d, 1, (-1, 9))
    rows = torch.unflatten(matrix, 1, (-1, 9))[:, :, :3]
    return cofactors / (rows * cofactors[:, :, :3]).sum(2, keepdim=True)


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
