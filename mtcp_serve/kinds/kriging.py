"""Correcting a map of depths by the few that are known: kriging of what its logarithm is off by.

That is taken for a Gaussian process (Rasmussen and Williams, 2006, equations 2.23 and 2.24) over the place in
the image and the predicted depth: an offset of all the image, of which nobody knows how large it may be, and
a part that pixels share the less, the farther apart they are and the more their depths differ. Known depths
may be wrong: their errors are Student's t, for which they are weighted again and again.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mtcp_serve.kinds.resample import bands

Vector = NDArray[np.float64]
_OFFSETS: Final = {0.1: 0.75, 0.4: 0.2, 1.6: 0.05}
"""Deviations that the offset may have, logarithms, and how likely each is before anything is known."""
_DEVIATION: Final = 0.22
"""Of the part that differs from pixel to pixel."""
_APART: Final = np.array([0.6, 0.6, 0.7])
"""How far apart pixels share 1/e of it: across and down, longer sides of the map; logarithms of depth."""
_NOISE: Final = 0.05
"""Deviation of a known depth that is not wrong, logarithms."""
_FREEDOM: Final = 3.0
"""Degrees of freedom of the errors: the fewer, the more of them may be large."""
_ROUNDS: Final = 100
"""Most times that known depths are weighted."""
_STILL: Final = 1e-3
"""Change of their weights from which on it is enough."""
_MOST: Final = 180
"""Known depths that are told apart: of more, those that are close to each other are taken for one."""


@dataclass(frozen=True)
class Correction:
    """What the logarithm of a map of depths is off by."""

    _at: Vector
    _weights: Vector
    _offset: float

    @classmethod
    def of(cls, depth: NDArray[np.float32], rows: Vector, columns: Vector, known: Vector) -> Self:
        """That of ``depth`` ``[h, w]``, positive, which is ``known`` at some of its pixels.

        Args:
            depth: as predicted.
            rows, columns: where it is known, in pixels of it or between; their centres are at integers.
            known: the depths there, of the same unit, positive; they may contradict each other.
        """
        logs = np.log(depth[pixels_at(depth.shape, rows, columns)].astype(np.float64))
        at, off = _thinned(_places(depth.shape, rows, columns, logs), np.log(known) - logs)
        shared = _covariance(at, at)
        trust = np.ones(len(off))
        for _ in range(_ROUNDS):
            weights, offset = _solve(shared, off, _NOISE**2 / trust)
            left = off - shared @ weights - offset
            before, trust = trust, (_FREEDOM + 1) / (_FREEDOM + (left / _NOISE) ** 2)
            if np.abs(trust - before).max() < _STILL:
                break
        return cls(at, weights, offset)

    def apply(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """``depth``, the map that it is of, corrected: positive where that is, else as it is."""
        height, width = depth.shape
        found = np.empty_like(depth)
        at, weights = (
            (self._at / _APART).astype(np.float32),
            (_DEVIATION**2 * self._weights).astype(np.float32),
        )
        for rows in bands(height, width * max(len(at), 1)):
            band = depth[rows]
            valid = band > 0
            logs = np.log(np.where(valid, band, 1))
            down, across = np.mgrid[rows, :width]
            here = _places(depth.shape, down, across, logs).astype(np.float32) / _APART.astype(np.float32)
            apart = np.zeros((*band.shape, len(at)), np.float32)
            for axis in range(3):
                apart += (here[..., axis, None] - at[:, axis]) ** 2
            np.sqrt(apart, out=apart)
            shared = np.exp(np.negative(apart, out=apart), out=apart)
            off = np.einsum("yxn,n->yx", shared, weights) + np.float32(self._offset)
            found[rows] = np.where(valid, band * np.exp(off), band)
        return found


def pixels_at(
    shape: tuple[int, ...], rows: Vector, columns: Vector
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixels of a map of ``shape`` that are nearest to places on it."""
    near = [np.rint(at).astype(np.intp) for at in (rows, columns)]
    return near[0].clip(0, shape[0] - 1), near[1].clip(0, shape[1] - 1)


def _places(shape: tuple[int, ...], rows: Vector, columns: Vector, logs: Vector) -> Vector:
    """Across and down in longer sides of the map, and logarithms of depth, ``[..., 3]``."""
    longer = max(shape)
    return np.stack([(columns + 0.5) / longer, (rows + 0.5) / longer, logs], axis=-1)


def _covariance(one: Vector, other: Vector) -> Vector:
    """Of the part that differs from pixel to pixel, between ``[n, 3]`` and ``[m, 3]`` places."""
    apart: Vector = np.linalg.norm((one[:, None] - other) / _APART, axis=-1)
    return _DEVIATION**2 * np.exp(-apart)


def _solve(shared: Vector, off: Vector, noise: Vector) -> tuple[Vector, float]:
    """The weight of each known depth and the offset, the mean over what the offset's deviation may be.

    An offset adds the same to every element of the covariance: one inverse is enough (Sherman and Morrison).
    """
    ones = np.ones_like(off)
    alone, level = np.linalg.solve(shared + np.diag(noise), np.stack([off, ones], axis=1)).T
    variance = np.array(list(_OFFSETS)) ** 2
    spread = 1 + variance * level.sum()
    offsets = variance * alone.sum() / spread
    evidence = np.log(list(_OFFSETS.values())) + (offsets * alone.sum() - np.log(spread)) / 2
    share = np.exp(evidence - evidence.max())
    offset = float(share @ offsets / share.sum())
    return alone - level * offset, offset


def _thinned(at: Vector, off: Vector) -> tuple[Vector, Vector]:
    """At most `_MOST` of them: the mean place and the median of those that fall into one cell of a grid."""
    cell, group = 0.02, np.arange(len(at))
    count = len(at)
    while count > _MOST:
        corner = np.floor((at - at.min(axis=0)) / (cell * _APART)).astype(np.int64)
        cells, group = np.unique(
            np.ravel_multi_index(tuple(corner.T), corner.max(axis=0) + 1), return_inverse=True
        )
        count, cell = len(cells), 1.3 * cell
    order = np.argsort(group, kind="stable")
    each = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return np.array([at[of].mean(axis=0) for of in each]), np.array([np.median(off[of]) for of in each])
