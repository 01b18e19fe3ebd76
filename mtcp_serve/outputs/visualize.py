"""Maps as pictures for people; the exact values are in `mtcp_serve.outputs.png`."""

from collections.abc import Sequence
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mtcp_serve.bundle.manifest import DepthTask, LabelsTask, NormalsTask, ProbabilityTask, TaskSpec
from mtcp_serve.inference.images import Photo
from mtcp_serve.inference.pipeline import Prediction
from mtcp_serve.kinds.base import Map
from mtcp_serve.outputs.png import to_image

_INVALID_GREY: Final = 128
_ANCHORS: Final = np.array(  # dark and cold to bright and warm, lightness rising evenly
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float64,
)
HEAT: Final = np.stack(
    [np.interp(np.linspace(0, 8, 256), np.arange(9), _ANCHORS[:, channel]) for channel in range(3)], axis=1
).astype(np.uint8)
"""Colour table ``[256, 3]`` uint8, far to near."""

CELL: Final = 480
"""Longest side of a picture in the overview, pixels."""
_GAP: Final = 8
_CAPTION: Final = 30
_FONT_SIZE: Final = 15
_COLUMNS: Final = 3


def colourise(task: TaskSpec, values: Map, depths: tuple[float, float] | None = None) -> Image.Image:
    """An RGB picture of a map: palette colours, near = warm, ``(n + 1) * 127.5``, or grey.

    The colours of a depth map are spread over ``depths`` (nearest, farthest), or between the 2nd and 98th
    percentile of its own valid depths. Invalid pixels are grey.
    """
    match task:
        case LabelsTask() | NormalsTask() | ProbabilityTask():
            return to_image(task, values).convert("RGB")
        case DepthTask():
            return Image.fromarray(_heat(values, depths))
        case _ as unreachable:
            assert_never(unreachable)


def _heat(depth: Map, depths: tuple[float, float] | None) -> NDArray[np.uint8]:
    valid = depth > 0
    picture = np.full((*depth.shape, 3), _INVALID_GREY, np.uint8)
    if valid.any():
        near, far = depths or np.percentile(depth[valid], [2, 98])
        closeness = (far - depth[valid]) / max(far - near, 1e-6)
        picture[valid] = HEAT[np.rint(closeness.clip(0, 1) * 255).astype(np.uint8)]
    return picture


def caption(task: TaskSpec, values: Map) -> str:
    """The task and what the map shows: the largest classes, or the range of depths."""
    match task:
        case LabelsTask():
            counts = np.array(Image.fromarray(values).histogram()[: len(task.labels)])
            largest = [int(index) for index in np.argsort(-counts, kind="stable")[:4] if counts[index]]
            return f"{task.name}: {', '.join(task.labels[index] for index in largest)}"
        case DepthTask():
            valid = values[values > 0]
            if not valid.size:
                return f"{task.name}: nothing valid"
            unit = " m" if task.metric else ""
            return f"{task.name}: {valid.min():.2g} to {valid.max():.2g}{unit}, near is bright"
        case NormalsTask():
            return f"{task.name}: {task.frame}"
        case ProbabilityTask():
            return f"{task.name}: {values.mean():.0%} of the picture"
        case _ as unreachable:
            assert_never(unreachable)


def overview(photo: Photo, prediction: Prediction) -> Image.Image:
    """One sheet: the photo and a picture of every map, three in a row, each with a caption."""
    info = photo.info
    scale = CELL / max(info.width, info.height)
    size = (max(round(info.width * scale), 1), max(round(info.height * scale), 1))
    first = Image.fromarray(photo.resized(size[1], size[0]))
    pictures = [(f"photo: {info.width} x {info.height}", first)]
    for dense in prediction.maps:
        rule = Image.Resampling.NEAREST if dense.task.kind == "labels" else Image.Resampling.BILINEAR
        pictures.append((caption(dense.task, dense.raw), colourise(dense.task, dense.raw).resize(size, rule)))
    return _sheet(pictures, size)


def _sheet(pictures: Sequence[tuple[str, Image.Image]], size: tuple[int, int]) -> Image.Image:
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    across, down = max(size[0], 240) + _GAP, size[1] + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for index, (text, picture) in enumerate(pictures):
        left, top = _GAP + index % columns * across, _GAP + index // columns * down
        draw.text((left, top + 5), _fitting(text, font, across - _GAP), fill="black", font=font)
        sheet.paste(picture, (left, top + _CAPTION))
    return sheet


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """``text``, cut with an ellipsis where it is wider than ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip(" ,:") + "..."
