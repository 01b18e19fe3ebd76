"""A map as a PNG file that stays meaningful on its own: values in the pixels, metadata in a text chunk."""

from collections.abc import Callable
from io import BytesIO
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec
from mtcp_serve.inference.resize import bands
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.schemas import ImageOut, MapOut

MILLIMETRE = 0.001
"""Metres a step of a metric depth PNG."""
COMPRESS_LEVEL = 1
"""Level 6 takes 4 to 7 times as long for a few per cent."""
TEXT_KEY = "mtcp"
"""Keyword of the text chunk with the map's metadata as JSON (`mtcp_serve.outputs.schemas.MapOut`)."""
IMAGE_KEY = "mtcp-image"
"""Keyword of the text chunk with what is known of the photo (`mtcp_serve.outputs.schemas.ImageOut`)."""
_WHITE = (255, 255, 255)


def depth_scale(task: DepthTask) -> tuple[float, float]:
    """``scale, offset`` of a depth PNG: value = offset + scale * pixel, for pixels 1 to 65535."""
    if task.metric:
        return MILLIMETRE, 0.0
    low, high = task.range
    scale = (high - low) / 65534
    return scale, low - scale


def to_image(task: TaskSpec, values: Map) -> Image.Image:
    """The map in its PNG form (see `mtcp_serve.outputs.schemas`), values rounded and clamped."""
    match task:
        case LabelsTask():
            image = Image.fromarray(values)
            palette = [_WHITE] * 256
            palette[: len(task.palette)] = map(_rgb, task.palette)
            image.putpalette([channel for colour in palette for channel in colour])
            return image
        case DepthTask():
            scale, offset = depth_scale(task)
            return _quantise(
                values,
                np.uint16,
                lambda v: np.where(v > 0, np.rint((v - offset) * (1 / scale)).clip(1, 65535), 0),
            )
        case NormalsTask():
            return _quantise(values, np.uint8, lambda v: np.rint((v + 1) * 127.5).clip(0, 255))
        case ProbabilityTask():
            return _quantise(values, np.uint8, lambda v: np.rint(v * 255).clip(0, 255))
        case _ as unreachable:
            assert_never(unreachable)


def to_png(task: TaskSpec, values: Map, metadata: MapOut, version: str, image: ImageOut) -> bytes:
    """The map as a PNG file.

    Its text chunks: ``Title`` (the task), ``Source`` (the model and its ``version``), `TEXT_KEY`
    (``metadata``) and `IMAGE_KEY` (the photo that the map belongs to).
    """
    text = PngInfo()
    text.add_text("Software", "mtcp-serve")
    text.add_text("Title", task.name)
    text.add_text("Source", f"{metadata.model} {version}")
    text.add_text(TEXT_KEY, metadata.model_dump_json(exclude_none=True, ensure_ascii=True))
    text.add_text(IMAGE_KEY, image.model_dump_json(exclude_none=True, ensure_ascii=True))
    buffer = BytesIO()
    to_image(task, values).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=text)
    return buffer.getvalue()


def _rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _quantise(
    values: Map, dtype: type[np.uint8 | np.uint16], convert: Callable[[Map], NDArray[Any]]
) -> Image.Image:
    """An image of ``convert(values)``, which must be in the range of ``dtype``; done band by band."""
    pixels = np.empty(values.shape, dtype)
    for rows in bands(*values.shape[:2]):
        pixels[rows] = convert(values[rows])
    return Image.fromarray(pixels)
