"""Arithmetic on coarse grids of an image: means over windows, and what lies between pixels.

Rows come first and columns last, ``[height, channels, width]``, so that whole rows are added up at a time.
"""

import numpy as np
from numpy.typing import NDArray


def window_means(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Of ``[height, channels, width]`` the mean over a square of ``2 * radius + 1`` pixels, or over what
    of it lies in the image."""
    for _ in range(2):
        values = _means(np.ascontiguousarray(values), radius).transpose(2, 1, 0)
    return values


def _means(rows: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean of each row and of the ``radius`` rows on either side of it that there are.

    A sum runs along with the window; of a grid's few hundred rows, so single precision is enough.
    """
    means = np.empty_like(rows)
    total = rows[:radius].sum(axis=0)
    for row, mean in enumerate(means):
        if row + radius < len(rows):
            total += rows[row + radius]
        if row > radius:
            total -= rows[row - radius - 1]
        np.divide(total, min(row + radius + 1, len(rows)) - max(row - radius, 0), out=mean)
    return means


def neighbours(
    places: NDArray[np.intp], size: int, small: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of ``places`` of an axis of ``size``: the one before on an axis of ``small``, and how far beyond it."""
    exact = ((places + 0.5) * (small / size) - 0.5).clip(0, small - 1)
    before = exact.astype(np.intp)
    return before, (exact - before).astype(np.float32)


def between(
    values: NDArray[np.float32], before: NDArray[np.intp], beyond: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """``values`` at places of an axis (the second or the third) that `neighbours` gave, linearly."""
    share = beyond if axis == 2 else beyond[:, None]
    found: NDArray[np.float32] = values.take(before, axis=axis)
    found += share * (values.take(before + (beyond > 0), axis=axis) - found)
    return found
