"""Arrays at another size or as pixels, band by band."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

_BAND = 2**16  # pixels worked on at a time, so that intermediate values stay in the processor's cache
T = TypeVar("T", bound=np.generic)


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that together cover ``height``, each of about 65,536 pixels."""
    step = max(_BAND // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def resize(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Write ``values``, ``[h, w]`` or ``[h, w, channels]``, into ``out``, bilinearly at its size."""
    height, width = out.shape[:2]
    channels = np.atleast_3d(out)  # the same memory
    if values.dtype != np.float32:
        for channel, plane in enumerate(_planes(values)):
            channels[..., channel] = Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
        return
    rows_at = bilinear(values, height, width)
    for rows in bands(height, width):
        for channel, plane in enumerate(rows_at(rows)):
            channels[rows, :, channel] = plane


def nearest(values: NDArray[T], height: int, width: int) -> NDArray[T]:
    """``[h, w]`` at ``height`` x ``width``: each pixel has the value of the one that covers its middle."""
    rows, columns = covering(values.shape[0], height), covering(values.shape[1], width)
    return values.take(columns, axis=1).take(rows, axis=0)


def covering(before: int, after: int) -> NDArray[np.intp]:
    """For each of ``after`` pixels of an axis the one of ``before`` that covers, or begins at, its middle."""
    return (np.arange(after) * 2 + 1) * before // (2 * after)


def bilinear(
    values: NDArray[np.float32], height: int, width: int
) -> Callable[[slice], Iterator[NDArray[np.float32]]]:
    """What gives any rows of ``values``, ``[h, w]`` or ``[h, w, channels]``, at ``height`` x ``width``.

    It gives them channel by channel, ``[rows, width]``, bit for bit as Pillow resizes the whole: along each
    row, and then, here, down the columns. Nobody has to hold a large map twice.
    """
    before = values.shape[0]
    lines = min(before, height)
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, lines), Image.Resampling.BILINEAR))
        for plane in _planes(values)
    ]
    if height <= before:
        return lambda rows: (plane[rows].copy() for plane in planes)
    exact = [plane.astype(np.float64) for plane in planes]  # Pillow sums up in double precision
    upper, lower, share, rest = _neighbours(before, height)

    def between(rows: slice) -> Iterator[NDArray[np.float32]]:
        for plane in exact:
            mixed = plane.take(upper[rows], axis=0)
            mixed *= share[rows, None]
            below = plane.take(lower[rows], axis=0)
            below *= rest[rows, None]
            mixed += below
            yield mixed.astype(np.float32)

    return between


def _planes(values: NDArray[Any]) -> list[NDArray[Any]]:
    """The channels of ``[h, w]`` or ``[h, w, channels]``, each of them contiguous."""
    return [np.ascontiguousarray(plane) for plane in np.moveaxis(np.atleast_3d(values), -1, 0)]


def _neighbours(
    before: int, after: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """For each of ``after`` pixels the two of ``before``, which are fewer, around it, and their weights."""
    center = (np.arange(after) + 0.5) * (before / after)
    upper = np.maximum(center - 0.5, 0).astype(np.intp)
    lower = np.minimum(upper + 1, before - 1)
    share = np.maximum(1 - np.abs(upper - center + 0.5), 0)
    rest = np.where(lower > upper, np.maximum(1 - np.abs(upper + 1 - center + 0.5), 0), 0)
    scale = 1 / (share + rest)
    return upper, lower, share * scale, rest * scale


def resize_labels(values: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Class ids ``[h, w]`` at the size of ``out``, and into it: borders between classes without stair-steps.

    Each class is a map of zeros and ones; it is enlarged with quadratic B-splines, and of all classes the
    largest wins. A pixel sees the 3 x 3 pixels around the nearest one, so only those near a border are
    computed. A straight border stays where it is, a line of one pixel as wide as it is, and nothing is
    invented.
    """
    height, width = out.shape
    out[:] = nearest(values, height, width)
    padded = np.pad(values, 1, mode="edge")
    mixed = _over_three(padded, np.maximum) != _over_three(padded, np.minimum)
    if not mixed.any():
        return
    number = np.where(mixed, np.cumsum(mixed, dtype=np.int32).reshape(mixed.shape) - 1, -1)  # in what follows
    ids = sliding_window_view(padded, (3, 3))[mixed].reshape(-1, 9)
    same = (ids == ids[:, 4:5]).astype(np.float32)
    near_border = nearest(mixed, height, width)
    rows, down = _splines(values.shape[0], height)
    columns, across = _splines(values.shape[1], width)
    for band in bands(height, width):
        y, x = np.divmod(np.flatnonzero(near_border[band]), width)
        y += band.start
        pixel = number[rows[y], columns[x]]
        weights = (down[y][:, :, None] * across[x][:, None, :]).reshape(-1, 9)
        lost = np.flatnonzero(np.einsum("nk,nk->n", same[pixel], weights) < 0.5)
        seen, weights = ids[pixel[lost]], weights[lost]
        total = np.einsum("nij,nj->ni", seen[:, :, None] == seen[:, None, :], weights)
        out[y[lost], x[lost]] = seen[np.arange(len(lost)), total.argmax(1)]


def _over_three(padded: NDArray[np.uint8], choose: np.ufunc) -> NDArray[np.uint8]:
    """The largest or smallest of the 3 x 3 pixels around each pixel of what was padded by one."""
    rows = choose(choose(padded[:-2], padded[1:-1]), padded[2:])
    chosen: NDArray[np.uint8] = choose(choose(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return chosen


def _splines(before: int, after: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of ``after`` pixels the nearest of ``before``, and the weights of it and its neighbours."""
    place = (np.arange(after) + 0.5) * (before / after)
    middle = covering(before, after)
    offset = place - middle - 0.5
    weights = np.stack([0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2], axis=1)
    return middle, weights.astype(np.float32)


def quantize(
    values: NDArray[Any],
    dtype: type[np.uint8 | np.uint16],
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> Image.Image:
    """An image of ``convert(values)``, which must be in the range of ``dtype``; done band by band.

    ``values`` are ``[height, width]``, or ``[height, width, 3]`` with uint8.
    """
    if values.ndim == 3:  # Pillow holds colours in a form of its own, and would copy them as a whole
        image = Image.new("RGB", values.shape[1::-1])
        for rows in bands(*values.shape[:2]):
            image.paste(Image.fromarray(convert(values[rows]).astype(dtype)), (0, rows.start))
        return image
    pixels = np.empty(values.shape, dtype)
    for rows in bands(*values.shape[:2]):
        pixels[rows] = convert(values[rows])
    return Image.fromarray(pixels)
