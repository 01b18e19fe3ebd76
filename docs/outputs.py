"""The picture of what the shipped model gives of the page's examples: ``python -m docs.outputs``.

A row for each image: itself, its subject cut out, its depth with a legend, and its points in space, seen a
little from the side.
"""

import argparse
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import mtcp_serve

EXAMPLES = ("example.jpg", "chelsea.jpg", "coffee.jpg")
TITLES = ("image", "cut-out", "depth", "points")
CELL = (360, 300)
GAP = 10
CAPTION = 26
GROUND = (20, 23, 29)
YAW, PITCH = math.radians(-16), math.radians(8)
CHECKS = ((201, 205, 212), (238, 240, 243))


def checkers(size: tuple[int, int], side: int = 10) -> Image.Image:
    """A checkerboard: what shows through where a picture is transparent."""
    rows, columns = np.indices((size[1], size[0])) // side
    return Image.fromarray(np.array(CHECKS, np.uint8)[(rows + columns) % 2])


def from_the_side(prediction: mtcp_serve.Prediction, size: tuple[int, int]) -> Image.Image:
    """The points of a prediction before a camera that has moved around their middle, far ones first."""
    points = prediction.points(step=1)
    place = points.positions.astype(np.float64)
    middle = np.array([0, 0, np.median(place[:, 2])])
    (cy, sy), (cp, sp) = ((math.cos(angle), math.sin(angle)) for angle in (YAW, PITCH))
    turn = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    seen = (place - middle) @ turn.T + middle
    flat = seen[:, :2] / -seen[:, 2:]
    low, high = np.percentile(flat, [0.5, 99.5], axis=0)
    scale = 0.94 * min(size / (high - low))
    pixels = np.rint((flat - (low + high) / 2) * scale * [1, -1] + np.array(size) / 2).astype(int)
    picture: NDArray[np.uint8] = np.full((size[1], size[0], 3), GROUND, np.uint8)
    order = np.argsort(seen[:, 2])
    for shift in ((0, 0), (1, 0), (0, 1), (1, 1)):  # a point is two pixels wide
        x, y = (pixels + shift)[order].T
        inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
        picture[y[inside], x[inside]] = points.colors[order][inside]
    return Image.fromarray(picture)


def row(prediction: mtcp_serve.Prediction, image: Image.Image) -> list[Image.Image]:
    """The pictures of one image."""
    cut = prediction.cutout()
    shown = checkers(cut.size)
    shown.paste(cut, mask=cut)
    return [image, shown, prediction.image("depth", legend=True), from_the_side(prediction, (720, 600))]


def sheet(rows: list[list[Image.Image]]) -> Image.Image:
    """The rows below each other, each picture as large as fits its cell."""
    across, down = CELL[0] + GAP, CELL[1] + GAP
    found = Image.new("RGB", (len(TITLES) * across + GAP, CAPTION + len(rows) * down + GAP), "white")
    draw = ImageDraw.Draw(found)
    font = ImageFont.load_default(16)
    for column, title in enumerate(TITLES):
        draw.text((GAP + column * across, 8), title, fill="black", font=font)
    for line, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            scale = min(CELL[0] / picture.width, CELL[1] / picture.height)
            size = round(picture.width * scale), round(picture.height * scale)
            left, top = GAP + column * across, CAPTION + GAP + line * down
            offset = (CELL[0] - size[0]) // 2, (CELL[1] - size[1]) // 2
            found.paste(picture.resize(size, Image.Resampling.LANCZOS), (left + offset[0], top + offset[1]))
    return found


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("outputs.jpg"))
    arguments = parser.parse_args()
    folder = files("mtcp_serve.server").joinpath("web")
    rows = []
    with mtcp_serve.load() as model:
        for name in EXAMPLES:
            with folder.joinpath(name).open("rb") as file:
                image = Image.open(file).convert("RGB")
            rows.append(row(model.predict(image), image))
    sheet(rows).save(arguments.out, quality=82, optimize=True, progressive=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
