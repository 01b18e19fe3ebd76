"""A map as a picture for people: its colours, and below them a legend of the depths that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mtcp_serve.errors import InvalidParameterError
from mtcp_serve.kinds import DepthTask, Map, TaskSpec
from mtcp_serve.kinds.colormaps import DEFAULT, colormap

_FONT: Final = (11, 32)  # size of the text, pixels: a 36th of the picture's width, within these
_NICE: Final = (1.0, 2.0, 2.5, 5.0, 10.0)  # steps between ticks, times a power of ten


@dataclass(frozen=True)
class Style:
    """How maps of kind depth are drawn; those of other kinds have their own colours."""

    colormap: str = DEFAULT
    """Of `mtcp_serve.kinds.colormaps`."""
    legend: bool = False
    """Say below the picture which depth a colour stands for."""


def check_style(colormap: str | None, legend: bool, tasks: Sequence[TaskSpec]) -> None:
    """Refuse a colour table or a legend where none of ``tasks`` would have it.

    Raises:
        InvalidParameterError: there is no depth among them.
    """
    if (colormap is not None or legend) and not any(isinstance(task, DepthTask) for task in tasks):
        what = "colormap" if colormap is not None else "legend"
        raise InvalidParameterError(
            f"{what} is of maps of kind depth, but the tasks are {', '.join(task.name for task in tasks)}",
            "leave it out, or ask for the depth",
        )


def draw(
    task: TaskSpec,
    values: Map,
    style: Style,
    limits: tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """An RGB picture of a map, as large as it, or ``size`` (width, height); a legend is added below.

    The colours are spread over ``limits``, or over the map's own range.
    """
    if not isinstance(task, DepthTask):
        return task.color(values if size is None else task.resize(values, size[1], size[0]), limits)
    limits = limits or task.spread(values)
    picture = task.color(values, limits, style.colormap)
    if size is not None:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    if not style.legend or limits is None:
        return picture
    return _under(picture, _legend(picture.width, limits, style.colormap, "m" if task.metric else ""))


def _under(picture: Image.Image, strip: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (picture.width, picture.height + strip.height))
    sheet.paste(picture, (0, 0))
    sheet.paste(strip, (0, picture.height))
    return sheet


def _legend(width: int, limits: tuple[float, float], name: str, unit: str) -> Image.Image:
    """A bar of the colours from near (left) to far, and below it the depths at its ticks."""
    size = min(max(width // 36, _FONT[0]), _FONT[1])
    font = ImageFont.load_default(size)
    near, far = limits
    strip = Image.new("RGB", (width, 3 * size), "white")
    pen = ImageDraw.Draw(strip)
    left, right = size, max(width - size, size + 1)  # the bar, from pixel to pixel
    places = np.linspace(1, 0, right - left)  # closeness
    bar = colormap(name)[np.rint(places * 255).astype(np.uint8)][None]
    strip.paste(Image.fromarray(np.repeat(bar, size, axis=0)), (left, size // 2))
    free = float(width)  # to the left of the text that is there
    ticks = _ticks(near, far, max(round((right - left) / (5 * size)), 1))
    for index, (depth, text) in reversed([*enumerate(ticks)]):
        at = left + (right - left - 1) * (depth - near) / max(far - near, 1e-6)
        words = f"{text} {unit}".rstrip() if index == len(ticks) - 1 else text
        long = font.getlength(words)
        start = min(max(at - long / 2, 0), max(width - long, 0))
        if start + long > free:
            continue
        pen.line([(round(at), size // 2 + size), (round(at), size // 2 + size + size // 4)], fill="black")
        pen.text((start, 2 * size - size // 4), words, fill="black", font=font)
        free = start - size / 2
    return strip


def _ticks(near: float, far: float, most: int) -> list[tuple[float, str]]:
    """At most about ``most`` round values from ``near`` to ``far``, and how they are written.

    Where there is no round one between them it is the middle.
    """
    if far - near < 1e-6:
        return [(near, f"{near:.3g}")]
    rough = (far - near) / most
    power = 10.0 ** floor(log10(rough))
    step = next(nice * power for nice in _NICE if nice * power >= rough * (1 - 1e-9))
    first, last = int(np.ceil(near / step - 1e-9)), int(np.floor(far / step + 1e-9))
    if last < first:
        return [((near + far) / 2, f"{(near + far) / 2:.3g}")]
    return [(index * step, f"{index * step:.6g}") for index in range(first, last + 1)]
