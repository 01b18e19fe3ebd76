"""Where one surface ends before another, and the depth without the ramp that a network draws there.

A step of depth is measured over a window, as a network draws it as a ramp of small ones; in 1 / depth, where
planes are straight however they slant; and beyond what the slopes before and behind the window account for.
So floors and walls that go away stay whole. The rule is that of ``mtcp_serve/server/web/depth_edges.js``; a
test holds the two together.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

Part = tuple[slice, slice]
_RAMPS: Final = 96  # the longer side over this is how far a ramp reaches to either side of its middle
_STEP: Final = 0.05  # of the nearer depth: a smaller step is relief
_FRINGE: Final = 0.25  # of a step, where the ramp beside an edge ends
_TEAR: Final = 0.8 * _STEP  # of the nearer depth: two pixels that are no further apart stay joined
_SMOOTHINGS: Final = 4  # of the depths along a rim


@dataclass(frozen=True)
class SharpDepth:
    """``depths`` float32 ``[height, width]``, 0 where invalid: pixels of ramps are on one of two surfaces.

    ``middles``, of the same shape, has the depth between the two for the pixels of ramps, 0 for all others.
    """

    depths: NDArray[np.float32]
    middles: NDArray[np.float32]

    def joined(self, down: int, across: int) -> NDArray[np.bool_]:
        """True where a surface joins the pixels of a pair, which are as `pairs` has them.

        Both have a depth, and no edge runs between them.
        """
        one, other = pairs(self.depths.shape, down, across)
        return self.join(self.depths[one], self.depths[other], self.middles[one], self.middles[other])

    @staticmethod
    def join(
        one: NDArray[np.float32],
        other: NDArray[np.float32],
        middle: NDArray[np.float32],
        other_middle: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """`joined`, of pixels by their ``depths`` and ``middles``."""
        nearer = np.minimum(one, other)
        found: NDArray[np.bool_] = (nearer > 0) & (np.abs(one - other) <= np.float32(_TEAR) * nearer)
        steep = (nearer > 0) & ~found
        a, b = one[steep], other[steep]
        apart = np.zeros(len(a), bool)
        for between in (middle[steep], other_middle[steep]):
            apart |= (between > 0) & ((a < between) != (b < between))
        found[steep] = ~apart
        return found

    def rims(self) -> NDArray[np.bool_]:
        """True where an edge runs between a pixel and one of its eight neighbours."""
        found = np.zeros(self.depths.shape, bool)
        for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
            one, other = pairs(found.shape, down, across)
            torn = ~self.joined(down, across) & (self.depths[one] > 0) & (self.depths[other] > 0)
            found[one] |= torn
            found[other] |= torn
        return found


def pairs(shape: tuple[int, ...], down: int, across: int) -> tuple[Part, Part]:
    """The parts of a map of ``shape`` that hold the first and the second of all pairs of its pixels.

    The second lies ``down`` (0 or 1) and ``across`` (-1, 0 or 1) from the first.
    """
    height, width = shape
    left, right = max(-across, 0), width - max(across, 0)
    return (
        (slice(0, height - down), slice(left, right)),
        (slice(down, height), slice(left + across, right + across)),
    )


def sharpen(depths: NDArray[np.float32]) -> SharpDepth:
    """The depth without the ramps between surfaces: each of their pixels goes to the surface on its side.

    The geometric mean of the depths around says which side that is. The depth beside a ramp is carried over
    it, so the rim of the nearer surface is not lost, and no point hangs in the air between the two.
    """
    height, width = depths.shape
    reach = max(2, ceil(max(height, width) / _RAMPS))
    steps = _measure_steps(depths, reach)
    valid = depths > 0
    ramps = _find_ramps(steps, valid, reach)
    middles = np.zeros_like(depths)
    if len(ramps) == 0:
        return SharpDepth(depths, middles)
    logs = np.log(np.where(valid, depths, 1), dtype=np.float32)
    middles.flat[ramps] = np.exp(_sums(logs, ramps, 2 * reach) / _sums(valid, ramps, 2 * reach))
    return SharpDepth(_filled(depths, middles, ramps), middles)


def _measure_steps(depths: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """How far the depth steps around each pixel, as a multiple of the least step that is an edge.

    In a wider window more is needed: the steepness is the same.
    """
    near = np.divide(1, depths, out=np.zeros_like(depths), where=depths > 0)
    found = np.zeros_like(near)
    for half, least in ((reach, _STEP), (2 * reach, 2 * _STEP)):
        for values, steps in ((near, found), (near.T, found.T)):
            length = values.shape[1]
            inner = slice(half + 1, length - half - 1)
            place = np.arange(length)[inner]
            if len(place) == 0:
                continue
            first, last = values[:, 1 : length - 2 * half - 1], values[:, 2 * half + 1 : length - 1]
            before, after = (values[:, np.clip(place + by, 0, length - 1)] for by in (-2 * half, 2 * half))
            rise = last - first
            up = np.where(rise < 0, np.float32(-1), np.float32(1))
            rise *= up
            lengthen = half / np.minimum(place - half, half).astype(np.float32)  # up to the picture's border
            slope = (first - before) * up * lengthen
            np.maximum(slope, (after - last) * up * lengthen[::-1], out=slope)
            np.clip(slope, 0, rise, out=slope)
            lowest = np.minimum(first, last)
            known = np.minimum(np.minimum(lowest, values[:, inner]), np.minimum(before, after)) > 0
            step = np.divide(
                rise - 2 * slope, lowest * np.float32(least), out=np.zeros_like(rise), where=known
            )
            np.maximum(steps[:, inner], step, out=steps[:, inner])
    return found


def _find_ramps(steps: NDArray[np.float32], valid: NDArray[np.bool_], reach: int) -> NDArray[np.intp]:
    """The flat indices of the pixels of ramps: those about an edge, and some more, for a ramp begins gently.

    Specks that form no line are no edge.
    """
    marks = steps > 1
    at = np.flatnonzero(marks)
    marks.flat[at] = _sums(marks, at, 2 * reach) >= 4 * reach
    ramps = np.flatnonzero(steps > _FRINGE)
    ramps = ramps[_sums(marks, ramps, reach) > 0]
    marks[:] = False
    marks.flat[ramps] = True
    return np.flatnonzero(_dilated(marks, reach // 2) & valid)


def _filled(
    depths: NDArray[np.float32], middles: NDArray[np.float32], ramps: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The depths beside the ramps, carried over them, each to its side of the middle, and smoothed there."""
    found = np.pad(depths, 1)
    width = found.shape[1]
    at = ramps + width + 1 + 2 * (ramps // depths.shape[1])  # in `found`
    around = at[:, None] + np.array(
        [y * width + x for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0)]
    )
    middle = middles.flat[ramps]
    nearer = depths.flat[ramps] < middle
    values = found.ravel()
    closed = np.ones(values.size, bool)
    closed[at] = False

    def carry(which: NDArray[np.intp]) -> NDArray[np.bool_]:
        others = values[around[which]]
        usable = closed[around[which]] & (others > 0)
        usable &= (others < middle[which, None]) == nearer[which, None]
        count = usable.sum(axis=1)
        sums = np.where(usable, others, 0).sum(axis=1, dtype=np.float64)
        has: NDArray[np.bool_] = count > 0
        values[at[which][has]] = sums[has] / count[has]
        return has

    def innermost(which: NDArray[np.intp]) -> NDArray[np.bool_]:
        others, side = values[around[which]], nearer[which, None]
        beyond = np.where(side, others < values[at[which], None], others > values[at[which], None])
        beyond &= (others > 0) & ((others < middle[which, None]) == side)
        within: NDArray[np.bool_] = np.logical_not(beyond.any(axis=1))
        return within

    every = np.arange(len(at))
    number = np.full(values.size, -1)
    number[at] = every
    left = beside = every
    while True:
        done = beside[carry(beside)]
        if len(done) == 0:  # nothing is beside what is thin: it has the depth of its middle
            left = left[~closed[at[left]]]
            done = left[innermost(left)]
            if len(done) == 0:  # all is done, or of noise, that has no sides
                break
        closed[at[done]] = True
        beside = np.unique(around[done])
        beside = number[beside[~closed[beside]]]  # only there is something new to carry
    for _ in range(_SMOOTHINGS):
        carry(every)
    return values.reshape(found.shape)[1:-1, 1:-1]


def _dilated(marks: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """True within ``reach`` of a mark, across and down."""
    for axis in (0, 1):
        wide = marks.copy()
        for by in range(1, reach + 1):
            here, there = (np.moveaxis(each, axis, 0) for each in (wide, marks))
            here[by:] |= there[:-by]
            here[:-by] |= there[by:]
        marks = wide
    return marks


def _sums(values: NDArray[np.generic], at: NDArray[np.intp], reach: int) -> NDArray[np.float64]:
    """Sums over the pixels no further than ``reach`` (across, down) from those at the flat indices ``at``."""
    height, width = values.shape
    total = np.zeros((height + 1, width + 1))
    np.cumsum(values, axis=0, out=total[1:, 1:])
    np.cumsum(total, axis=1, out=total)
    row, column = np.divmod(at, width)
    above, below = np.maximum(row - reach, 0), np.minimum(row + reach + 1, height)
    left, right = np.maximum(column - reach, 0), np.minimum(column + reach + 1, width)
    found: NDArray[np.float64] = (
        total[below, right] - total[above, right] - total[below, left] + total[above, left]
    )
    return found
