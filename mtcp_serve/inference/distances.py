"""Distances that are known at some pixels of an image, and depth that agrees with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.kinds import DepthTask, TaskSpec
from mtcp_serve.kinds.depth import MILLIMETRE, MOST_METRES, MeasuredOut
from mtcp_serve.kinds.kriging import Correction, pixels_at

MOST: Final = 100_000
"""Distances that an image may have."""
_AGREES: Final = 1.25


@dataclass(frozen=True, eq=False)
class Distances:
    """Known distances along the optical axis, float64 ``[n, 3]``: ``x``, ``y``, metres.

    ``x`` and ``y`` are pixels of the upright image, with pixel centres at integers, as for
    `mtcp_serve.inference.camera`.
    """

    points: NDArray[np.float64]

    @classmethod
    def of(cls, points: ArrayLike) -> Self:
        """Those that a program gives: ``[(x, y, metres), ...]``.

        Raises:
            InvalidParameterError: they are not one to `MOST` triples of numbers, or a distance is none that a
                depth map can have.
        """
        try:
            found = np.ma.filled(np.ma.array(points, np.float64, copy=True), np.nan)  # masked: no number
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor with a gradient
            found = np.empty(0)
        if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
            raise InvalidParameterError(
                "distances are not triples of numbers", "give x, y (pixels of the image) and metres of each"
            )
        if not 0 < len(found) <= MOST:
            raise InvalidParameterError(f"there are {len(found)} distances; give 1 to {MOST}")
        x, y, metres = found[np.argmax((found[:, 2] < MILLIMETRE) | (found[:, 2] > MOST_METRES))]
        if not MILLIMETRE <= metres <= MOST_METRES:
            raise InvalidParameterError(
                f"the distance at ({x:g}, {y:g}) is {metres:g} m; depth maps have "
                f"{MILLIMETRE:g} to {MOST_METRES:g} m",
                "leave it out",
            )
        return cls(found)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Those written ``x,y,metres,x,y,metres``; no semicolons, for curl ends a field at one.

        Raises:
            InvalidParameterError: they are not; or what `of` raises.
        """
        try:
            numbers = np.array([float(number) for number in text.split(",")])
        except ValueError:
            numbers = np.empty(1)
        if len(numbers) % 3:
            raise InvalidParameterError(f"distances are {_short(text)!r}", "write x,y,metres,x,y,metres")
        return cls.of(numbers.reshape(-1, 3))

    def text(self) -> str:
        """What `parse` reads, to a thousandth of a pixel and of a metre."""
        return ",".join(f"{round(value, 3):.9g}" for value in self.points.ravel().tolist())

    def check(self, image: ImageInfo) -> None:
        """Refuse what is not in ``image``.

        Raises:
            InvalidParameterError: a pixel is outside; the message names it.
        """
        last = np.array([image.width, image.height]) - 0.5
        outside = ((self.points[:, :2] < -0.5) | (self.points[:, :2] > last)).any(axis=1)
        if outside.any():
            x, y, _ = self.points[outside.argmax()]
            raise InvalidParameterError(
                f"a distance is at ({x:g}, {y:g}), and the upright image has "
                f"{image.width} x {image.height} pixels",
                "give x from the left and y from the top, in pixels of the image as it is shown",
            )

    def correct(
        self, depth: NDArray[np.float32], image: ImageInfo
    ) -> tuple[NDArray[np.float32], MeasuredOut]:
        """``depth`` ``[h, w]``, metres, of all of ``image``, so that it agrees with them; and what that did.

        Invalid pixels (0) stay. See `mtcp_serve.kinds.kriging`.

        Raises:
            InvalidParameterError: there is no depth at one of their pixels.
        """
        x, y, metres = self.points.T
        rows = (y + 0.5) * (depth.shape[0] / image.height) - 0.5
        columns = (x + 0.5) * (depth.shape[1] / image.width) - 0.5
        pixels, valid = pixels_at(depth.shape, rows, columns), depth > 0
        if not valid[pixels].all():
            at = valid[pixels].argmin()
            raise InvalidParameterError(
                f"the model has no depth at ({x[at]:g}, {y[at]:g}), where a distance is known", "leave it out"
            )
        found = Correction.of(depth, rows, columns, metres).apply(depth)
        np.clip(found, MILLIMETRE, MOST_METRES, out=found, where=valid)
        factors = np.maximum(found[pixels] / metres, metres / found[pixels])
        about = MeasuredOut(
            points=len(metres),
            factor=round(float(np.median(found[valid] / depth[valid])), 4),
            disagreeing=int((factors > _AGREES).sum()),
        )
        return found, about


def check_measurable(tasks: Iterable[TaskSpec]) -> None:
    """Refuse distances where nothing would heed them.

    Raises:
        InvalidParameterError: none of ``tasks`` is a depth in metres.
    """
    if not any(isinstance(task, DepthTask) and task.metric for task in tasks):
        raise InvalidParameterError(
            "distances correct depth in metres, and none is asked for",
            "leave them out, or ask for a task and a format with depth",
        )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
