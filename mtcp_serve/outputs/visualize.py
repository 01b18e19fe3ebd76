"""Maps as pictures for people; the exact values are in `mtcp_serve.outputs.png`."""

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from mtcp_serve.inference.images import DecodedImage
from mtcp_serve.inference.pipeline import DenseMaps
from mtcp_serve.outputs.picture import Style, draw

CELL: Final = 480
"""Longest side of a picture in the overview, pixels."""
_GAP: Final = 8
_CAPTION: Final = 30
_FONT_SIZE: Final = 15
_COLUMNS: Final = 3


def overview(image: DecodedImage, prediction: DenseMaps, style: Style | None = None) -> Image.Image:
    """One sheet: the image and a picture of every map, three in a row, each with a caption.

    After a map comes its confidence, where the prediction has it.
    """
    style = style or Style()
    info = image.info
    scale = CELL / max(info.width, info.height)
    size = (max(round(info.width * scale), 1), max(round(info.height * scale), 1))
    first = Image.fromarray(image.resized(size[1], size[0]))
    pictures = [(f"image: {info.width} x {info.height}", first)]
    for dense in prediction.maps:
        task = dense.task
        pictures.append((f"{task.name}: {task.caption(dense.raw)}", draw(task, dense.raw, style, size=size)))
        sure = dense.confidence
        if sure is not None:
            text = f"{sure.task.name}: {sure.task.caption(sure.raw)}"
            pictures.append((text, draw(sure.task, sure.raw, style, size=size)))
    return _sheet(pictures)


def _sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    across = max(240, *(picture.width for _, picture in pictures)) + _GAP
    down = max(picture.height for _, picture in pictures) + _CAPTION + _GAP
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
