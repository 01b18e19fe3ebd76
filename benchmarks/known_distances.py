"""What distances that are known are worth: ``python -m benchmarks.known_distances FOLDER``.

A bundle's depth is corrected by the labels of a few pixels of each image, drawn at random, and all of it is
compared with the labels. ``--error .02`` draws the distances wrong by that much, ``--wrong .1`` so many of
them by a factor of two, nearer or farther. Beside it: the depth times the median of the ratios there, and its
scale and shift of least squares. Prints a Markdown table.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

import mtcp_serve
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.inference.distances import Distances
from mtcp_serve.inference.images import ImageInfo
from mtcp_serve.kinds import DepthTask
from mtcp_serve.kinds.depth import MILLIMETRE
from mtcp_serve.kinds.kriging import pixels_at
from training.metrics.depth import DepthMetric
from training.report import markdown
from training.tasks import make_task

Depth = NDArray[np.float32]
Points = NDArray[np.float64]
_SHOWN = {"rmse/invpt": "RMSE, m", "absrel": "AbsRel", "delta<1.25": "delta<1.25"}


def main(
    folder: Annotated[Path, typer.Argument(help="A partial-label folder: images/, splits/, depth/.")],
    bundle: Annotated[Path, typer.Option(help="What answers.")] = DEFAULT_BUNDLE,
    split: Annotated[str, typer.Option(help="Of splits/.")] = "val",
    counts: Annotated[
        str, typer.Option(help="How many distances, separated by commas.")
    ] = "0,1,2,3,5,10,30,100,300",
    error: Annotated[float, typer.Option(min=0, help="Deviation of a distance, as a share of it.")] = 0.02,
    wrong: Annotated[float, typer.Option(min=0, max=1, help="Share of distances that are wrong by 2.")] = 0.0,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each image's distances.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Correct depth by known distances, and compare it with the rest of the labels."""
    numbers = [int(count) for count in counts.split(",")]
    scores = {(count, way): DepthMetric(make_task("depth")) for count in numbers for way in WAYS}
    rng = np.random.default_rng(seed)
    with mtcp_serve.load(bundle) as model:
        task = next(task for task in model.manifest.tasks if isinstance(task, DepthTask))
        for name in (folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").split():
            label = folder / "depth" / f"{name}.png"
            if not label.is_file():
                continue
            truth = np.asarray(Image.open(label), np.float32) * np.float32(MILLIMETRE)
            found = model.predict(folder / "images" / f"{name}.jpg", [task.name], size="model")[task.name]
            raw = found.astype(np.float32, copy=False)
            for count in numbers:
                for _ in range(draws):
                    points = _drawn(truth, count, error, wrong, rng)
                    for way, correct in WAYS.items():
                        depth = correct(raw, points, truth.shape) if count else raw
                        values = torch.from_numpy(np.array(task.resize(depth, *truth.shape)))
                        scores[count, way].update(values[None], torch.from_numpy(truth)[None, None])
    rows = []
    for (count, way), score in scores.items():
        known = score.compute()
        rows.append([str(count), way, *(f"{known[metric]:.3f}" for metric in _SHOWN)])
    print(markdown(["distances", "way", *_SHOWN.values()], rows))


def _drawn(truth: Depth, count: int, error: float, wrong: float, rng: np.random.Generator) -> Points:
    """``count`` labelled pixels ``[n, 3]``: x, y and metres, with errors."""
    valid = np.flatnonzero(truth)
    drawn = rng.choice(valid, min(count, valid.size), replace=False)
    y, x = np.unravel_index(drawn, truth.shape)
    off = error * rng.standard_normal(drawn.size)
    off += np.log(2) * rng.choice([-1, 1], drawn.size) * (rng.random(drawn.size) < wrong)
    return np.stack([x, y, truth[y, x] * np.exp(off)], axis=1)


def _kriged(raw: Depth, points: Points, shape: tuple[int, ...]) -> Depth:
    height, width = shape  # of the label, in whose pixels the points are
    image = ImageInfo(width, height, "array", "RGB", exif_rotated=False, animated=False)
    return Distances.of(points).correct(raw, image)[0]


def _scaled(raw: Depth, points: Points, shape: tuple[int, ...]) -> Depth:
    return raw * np.float32(np.median(points[:, 2] / _at(raw, points, shape)))


def _fitted(raw: Depth, points: Points, shape: tuple[int, ...]) -> Depth:
    if len(points) < 2:
        return _scaled(raw, points, shape)
    there = np.stack([_at(raw, points, shape), np.ones(len(points))], axis=1)
    scale, shift = np.linalg.lstsq(there, points[:, 2])[0].astype(np.float32)
    fitted: Depth = np.maximum(scale * raw + shift, np.float32(MILLIMETRE))
    return fitted


def _at(raw: Depth, points: Points, shape: tuple[int, ...]) -> Points:
    rows = (points[:, 1] + 0.5) * (raw.shape[0] / shape[0]) - 0.5
    columns = (points[:, 0] + 0.5) * (raw.shape[1] / shape[1]) - 0.5
    return raw[pixels_at(raw.shape, rows, columns)].astype(np.float64)


WAYS: Mapping[str, Callable[[Depth, Points, tuple[int, ...]], Depth]] = {
    "kriging": _kriged,
    "one factor": _scaled,
    "scale and shift": _fitted,
}


if __name__ == "__main__":
    typer.run(main)
