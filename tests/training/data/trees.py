"""Tiny partial-label folders, written in the published layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.data import SourceConfig
from training.tasks import make_task

TASKS = (
    make_task("semseg", "voc"),
    make_task("depth"),
    make_task("normals"),
    make_task("saliency"),
    make_task("parsing", "fashion"),
)
SPACES = {"semseg": "voc", "parsing": "fashion"}
SIZE = (12, 16)

HALF = 1e-3
"""Relative error of a half-precision number, and a little more."""

Pixels = NDArray[np.generic]


def write_png(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def photo(height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """An image whose red grows with the column and whose green grows with the row."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * columns / (width - 1), 255 * rows / (height - 1)
    return np.stack([red, green, np.full_like(red, 128)], -1).round().astype(np.uint8)


def write_record(root: Path, name: str, maps: Mapping[str, Pixels], image: Pixels | None = None) -> None:
    """An image (PNG, so that nothing is lost) and its label files."""
    write_png(root / "images" / f"{name}.png", photo() if image is None else image)
    for folder, pixels in maps.items():
        write_png(root / folder / f"{name}.png", pixels)


def write_split(root: Path, ids: Sequence[str], split: str = "train") -> None:
    path = root / "splits" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in ids))


def all_maps(height: int = 24, width: int = 32) -> dict[str, Pixels]:
    """One map of every kind: left half one thing, right half another, top row unlabelled."""
    left = np.zeros((height, width), bool)
    left[:, : width // 2] = True
    facing, aside = np.array([128, 128, 255], np.uint8), np.array([255, 128, 128], np.uint8)
    maps: dict[str, Pixels] = {
        "semseg": np.where(left, 15, 0).astype(np.uint8),
        "parsing": np.where(left, 3, 0).astype(np.uint8),
        "saliency": np.where(left, 255, 51).astype(np.uint8),
        "depth": np.where(left, 1500, 4000).astype(np.uint16),
        "disparity": np.where(left, 255, 51).astype(np.uint8),
        "normals": np.where(left[..., None], facing, aside),
    }
    for name, missing in (("semseg", 255), ("parsing", 255), ("depth", 0), ("disparity", 0), ("normals", 0)):
        maps[name][0] = missing
    return maps


def wide(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with its half-precision maps as float32, for comparisons within `HALF`."""
    halves = (name for name, value in sample.items() if getattr(value, "dtype", None) == torch.float16)
    return {**sample, **{name: sample[name].float() for name in halves}}


def folder(root: Path, **settings: Any) -> SourceConfig:
    return SourceConfig(kind="folder", root=str(root), **{"tasks": SPACES, **settings})
