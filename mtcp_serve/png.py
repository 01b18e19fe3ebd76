"""A map as a PNG file that stays meaningful on its own: values in the pixels, metadata in a text chunk."""

from io import BytesIO
from typing import assert_never

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtcp_serve.describe import depth_scale
from mtcp_serve.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask
from mtcp_serve.pipeline import DenseMap
from mtcp_serve.schemas import MapOut

COMPRESS_LEVEL = 1
"""Level 6 takes 4 to 7 times as long for a few per cent."""
TEXT_KEY = "mtcp"
"""Keyword of the text chunk; its text is the map's metadata as JSON."""
_WHITE = (255, 255, 255)


def rgb(colour: str) -> tuple[int, int, int]:
    """``#rrggbb`` as three numbers."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def to_image(dense: DenseMap) -> Image.Image:
    """The map in its PNG form (see the classes of `mtcp_serve.schemas`), values rounded and clamped."""
    task, values = dense.task, dense.values
    match task:
        case LabelsTask():
            image = Image.fromarray(values).convert("P")
            palette = [_WHITE] * 256
            palette[: len(task.palette)] = map(rgb, task.palette)
            image.putpalette([channel for colour in palette for channel in colour])
            return image
        case DepthTask():
            scale, offset = depth_scale(task)
            steps = np.rint((values.astype(np.float64) - offset) / scale).clip(1, 65535)
            return Image.fromarray(np.where(values > 0, steps, 0).astype(np.uint16))
        case NormalsTask():
            return Image.fromarray(np.rint((values + 1) * 127.5).clip(0, 255).astype(np.uint8))
        case ProbabilityTask():
            return Image.fromarray(np.rint(values * 255).clip(0, 255).astype(np.uint8))
        case _ as unreachable:
            assert_never(unreachable)


def to_png(dense: DenseMap, metadata: MapOut) -> bytes:
    """The map as a PNG file with ``metadata`` in its text chunk `TEXT_KEY`."""
    text = PngInfo()
    text.add_text("Software", "mtcp-serve")
    text.add_text("Title", dense.task.name)
    text.add_text(TEXT_KEY, metadata.model_dump_json(exclude_none=True, ensure_ascii=True))
    buffer = BytesIO()
    to_image(dense).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=text)
    return buffer.getvalue()
