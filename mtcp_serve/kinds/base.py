"""What all kinds of task have in common."""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.uint8] | NDArray[np.float32]
"""One task's map: uint8 labels or float32 values, ``[height, width]`` and the kind's own axes after them."""
