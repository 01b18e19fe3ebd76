"""What a model is tried on where there is no image."""

import numpy as np
from numpy.typing import NDArray


def drawn(height: int, width: int) -> NDArray[np.uint8]:
    """A figure before a wall that gets darker, ``[1, height, width, 3]``: something for every task to see."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = np.stack([200 - 110 * columns, 190 - 90 * columns, 170 - 60 * rows], -1)
    image[rows > 0.7] = (120, 90, 60)
    image[(np.abs(columns - 0.5) < 0.12) & (rows > 0.45) & (rows < 0.9)] = (40, 60, 140)
    image[(columns - 0.5) ** 2 + (rows - 0.35) ** 2 < 0.01] = (220, 180, 150)
    return image.astype(np.uint8)[None]
