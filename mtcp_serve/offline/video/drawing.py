"""A frame of a film: the colours of a map, alone or laid over the frame of the video."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.inference.pipeline import DenseMap
from mtcp_serve.offline.video import Layer


def draw(layer: Layer, dense: DenseMap, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours of ``dense`` at the size of ``frame`` (``[height, width, 3]`` uint8 RGB), blended as asked.

    Depth is coloured over the range of the manifest, the same in every frame, so that colours do not flicker.
    """
    picture = dense.task.color(dense.values(), dense.task.color_range)
    if layer.opacity is not None:
        picture = Image.blend(Image.fromarray(frame), picture, layer.opacity)
    return np.asarray(picture)
