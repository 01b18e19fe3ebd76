"""How crisp maps are at the size of the image: ``python -m benchmarks.boundaries FOLDER TASK=SPACE ...``.

Each bundle answers as it does everywhere, at image size, and is compared with true labels at their own size;
also with ``refine``, along the edges of the image, and label maps as they would be if their ids were enlarged
by nearest neighbour. ``--coarser 3`` makes the maps three times as coarse first, as those of an image three
times as large would be beside it. Prints a Markdown table.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image

import mtcp_serve
from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.kinds import LabelsTask, TaskSpec
from mtcp_serve.kinds.guided import Guide
from training.label_spaces import IGNORE_LABEL, LABEL_SPACES
from training.metrics.boundaries import edge_counts, edge_f, label_edges
from training.metrics.depth import DepthMetric
from training.metrics.probability import ProbabilityMetric
from training.report import markdown
from training.tasks import make_task

Map = NDArray[Any]


class LabelScore:
    """Boundaries of label maps in the space of the labels; each class of a map is in one class there."""

    def __init__(self, space: str, labels: str) -> None:
        parts = LABEL_SPACES[space].targets.parts
        if labels not in parts:
            raise typer.BadParameter(f"{space} maps no labels of {labels!r}, only of {', '.join(parts)}")
        self._classes = parts[labels].members.argmax(0)
        self._edges = torch.zeros(4, dtype=torch.float64)
        self._pixels = np.zeros(2)

    def add(self, values: Map, truth: Map) -> None:
        """Add class ids [H,W] of the bundle and of the labels (255 ignore)."""
        found, labels = (
            torch.from_numpy(ids.astype(np.int64))[None] for ids in (self._classes[values], truth)
        )
        valid = labels != IGNORE_LABEL
        edges = label_edges(found, torch.ones_like(valid)), label_edges(labels, valid)
        self._edges += edge_counts(*edges, valid)
        self._pixels += [((found == labels) & valid).sum().item(), valid.sum().item()]

    def metrics(self) -> dict[str, float]:
        """``edgeF`` and ``pixel_accuracy``."""
        return {
            "edgeF": edge_f(self._edges) or 0.0,
            "pixel_accuracy": float(self._pixels[0] / max(self._pixels[1], 1)),
        }


class ValueScore:
    """What training's metric says of depth (labels in millimetres) or saliency (255 p)."""

    def __init__(self, name: str) -> None:
        depth = name == "depth"
        self._scale = 0.001 if depth else 1 / 255
        self._metric = (DepthMetric if depth else ProbabilityMetric)(make_task(name))
        self._wanted = ("edgeF", "rmse/invpt") if depth else ("MAE", "MAE/edges", "maxF/averaged")

    def add(self, values: Map, truth: Map) -> None:
        """Add a map [H,W] of the bundle and the pixels of its label."""
        labels = torch.from_numpy(truth.astype(np.float32) * np.float32(self._scale))
        self._metric.update(torch.from_numpy(np.array(values))[None], labels[None, None])

    def metrics(self) -> dict[str, float]:
        """The metrics about edges, and one of the whole."""
        found = self._metric.compute()
        return {name: found[name] for name in self._wanted if name in found}


def main(
    folder: Annotated[Path, typer.Argument(help="A partial-label folder: images/, splits/, TASK/.")],
    asked: Annotated[list[str], typer.Argument(help="Tasks: depth, saliency, semseg=voc, parsing=fashion.")],
    bundle: Annotated[list[Path], typer.Option(help="Bundles to compare.")] = [DEFAULT_BUNDLE],  # noqa: B006
    split: Annotated[str, typer.Option(help="Of splits/.")] = "val",
    every: Annotated[int, typer.Option(min=1, help="Take every so many labelled images.")] = 1,
    coarser: Annotated[int, typer.Option(min=1, help="Make maps so many times as coarse.")] = 1,
) -> None:
    """Compare bundles with true labels at the size of the labels."""
    spaces = dict(entry.partition("=")[::2] for entry in asked)
    lines = []
    for place in bundle:
        for (way, name), score in score_bundle(place, folder, spaces, split, every, coarser).items():
            lines += [
                [place.name, name, way, metric, f"{value:.4f}"] for metric, value in score.metrics().items()
            ]
    print(markdown(["bundle", "task", "enlarged", "metric", "value"], lines))


def score_bundle(
    place: Path, folder: Path, spaces: Mapping[str, str], split: str, every: int = 1, coarser: int = 1
) -> dict[tuple[str, str], LabelScore | ValueScore]:
    """The scores of a bundle, by how maps were enlarged and task; ``spaces`` has those of label tasks."""
    with mtcp_serve.load(place, engine="onnxruntime") as model:
        tasks = {task.name: task for task in model.manifest.tasks if task.name in spaces}
        if missing := spaces.keys() - tasks.keys():
            raise typer.BadParameter(f"{place} has no {', '.join(sorted(missing))}")
        scores: dict[tuple[str, str], LabelScore | ValueScore] = {}
        for image, labels in list(_labelled(folder, list(tasks), split))[::every]:
            with Image.open(image) as opened:
                photo = opened.convert("RGB")
            maps = model.predict(photo, tasks=list(labels), size="model")
            for name, path in labels.items():
                truth = np.asarray(Image.open(path))
                pixels = np.asarray(photo.resize(truth.shape[1::-1], Image.Resampling.BOX))
                raw = _coarser(tasks[name], maps[name], coarser)
                for way, values in _enlarged(tasks[name], raw, pixels):
                    if (way, name) not in scores:
                        scores[way, name] = _score(tasks[name], spaces[name])
                    scores[way, name].add(values, truth)
    return scores


def _score(task: TaskSpec, space: str) -> LabelScore | ValueScore:
    return LabelScore(task.dataset, space) if isinstance(task, LabelsTask) else ValueScore(task.name)


def _labelled(folder: Path, tasks: list[str], split: str) -> Iterator[tuple[Path, dict[str, Path]]]:
    for name in (folder / "splits" / f"{split}.txt").read_text(encoding="utf-8").splitlines():
        labels = {task: folder / task / f"{name}.png" for task in tasks}
        present = {task: path for task, path in labels.items() if path.is_file()}
        if name and present:
            yield folder / "images" / f"{name}.jpg", present


def _coarser(task: TaskSpec, values: Map, times: int) -> Map:
    height, width = (side // times for side in values.shape[:2])
    if isinstance(task, LabelsTask):
        return task.resize(values, height, width)
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BOX))


def _enlarged(task: TaskSpec, values: Map, pixels: NDArray[np.uint8]) -> Iterator[tuple[str, Map]]:
    height, width = pixels.shape[:2]
    yield task.resampling, task.resize(values, height, width)
    refined: Map = np.empty((height, width), task.array_type)
    task.refine(values, Guide(lambda: pixels), refined)
    yield "guided", refined
    if task.resampling == "majority":
        plain = Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)
        yield "nearest", np.asarray(plain)


if __name__ == "__main__":
    typer.run(main)
