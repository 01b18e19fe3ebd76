"""A frame of a rendered video: the colours of a map, alone or laid over the frame of the video."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtcp_serve.inference.pipeline import DenseMap
from mtcp_serve.offline.video import Layer
from mtcp_serve.outputs.picture import Style, draw


def draw_frame(layer: Layer, dense: DenseMap, frame: NDArray[np.uint8], style: Style) -> NDArray[np.uint8]:
    """The colours of ``dense`` at the size of ``frame`` (``[height, width, 3]`` uint8 RGB), blended as asked.

    With a legend the rendered frame is higher.

    Depth is coloured over the range of the manifest, the same in every frame, so that colours do not flicker.
    """
    picture = draw(dense.task, dense.values(), style, dense.task.color_range)
    if layer.opacity is not None:
        height, width = frame.shape[:2]
        top = (0, 0, width, height)
        picture.paste(Image.blend(Image.fromarray(frame), picture.crop(top), layer.opacity), top)
    return np.asarray(picture)
