"""Edges as the boundaries of regions."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import laplace
from skimage.morphology import thin


def boundaries(regions: NDArray[np.integer]) -> NDArray[np.float32]:
    """Thin boundaries (1) between the regions of an id map [H, W], and 0 elsewhere.

    Where the Laplacian of the ids is not zero, thinned to one pixel: the edge labels of PASCAL_MT as ASTMT
    makes them (Maninis et al., arXiv 1904.08918).
    """
    change = laplace(regions.astype(np.float64), mode="mirror") != 0
    return np.asarray(thin(change), np.float32)
