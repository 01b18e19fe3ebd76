"""How the frames of a video are to be shown: turned, mirrored, or both."""

from dataclasses import dataclass
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture down: first ``transposed``, then columns and rows reversed."""

    transposed: bool = False
    columns_reversed: bool = False
    rows_reversed: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        """That of ``frame`` by its display matrix; of one that is slanted, the nearest without a slant."""
        side_data: Any = frame.side_data  # PyAV's stubs know of motion vectors only
        found = side_data.get("DISPLAYMATRIX")
        if found is None:
            return cls()
        matrix = np.frombuffer(bytes(found), np.int32).reshape(3, 3)
        # A pixel (x, y) is shown at (ax + cy, bx + dy), y downwards: libavutil/display.h.
        (a, b), (c, d) = matrix[:2, :2].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, columns_reversed=c < 0, rows_reversed=b < 0)
        return cls(False, columns_reversed=a < 0, rows_reversed=d < 0)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``pixels`` ``[height, width, 3]`` of the file as they are to be shown, contiguous."""
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        rows, columns = (-1 if reversed_ else 1 for reversed_ in (self.rows_reversed, self.columns_reversed))
        return np.ascontiguousarray(turned[::rows, ::columns])
