"""The picture of what refining does: ``python -m docs.refined``.

A part of ``docs/astronaut.jpg``, larger: the cut-out, the depth and the saliency, enlarged bilinearly, and
below them along the edges of the image.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import mtcp_serve
from docs.outputs import checkers

PART = (150, 10, 330, 160)  # left, upper, right, lower
SCALE = 2
GAP = 6


def row(maps: mtcp_serve.Prediction, refine: bool) -> list[Image.Image]:
    """The pictures of one prediction, the part of each."""
    cut = maps.cutout(refine=refine)
    shown = checkers(cut.size, 6)
    shown.paste(cut, mask=cut)
    depth = maps["depth"]
    left, upper, right, lower = PART
    near, far = np.percentile(depth[upper:lower, left:right], [1, 99])
    closeness = ((far - depth) / (far - near)).clip(0, 1)
    grey = Image.fromarray(np.rint(255 * closeness).astype(np.uint8)).convert("RGB")
    return [shown.crop(PART), grey.crop(PART), maps.image("saliency").crop(PART)]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__)
    parser.add_argument("-o", "--out", type=Path, default=here.with_name("refined.jpg"))
    arguments = parser.parse_args()
    tasks = ["saliency", "depth"]
    with mtcp_serve.load() as model:
        image = here.with_name("astronaut.jpg")
        rows = [row(model.predict(image, tasks, refine=refine), refine) for refine in (False, True)]
    width, height = (SCALE * (PART[end] - PART[end - 2]) + GAP for end in (2, 3))
    sheet = Image.new("RGB", (3 * width + GAP, 2 * height + GAP), "white")
    for line, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            large = picture.resize((width - GAP, height - GAP), Image.Resampling.LANCZOS)
            sheet.paste(large, (GAP + column * width, GAP + line * height))
    sheet.save(arguments.out, quality=82, optimize=True, progressive=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
