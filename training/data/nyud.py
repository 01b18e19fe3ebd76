"""NYUD_MT as it is published: NYUv2 with semantics (40 classes), depth, normals and edges.

============================  ============================  ============================================
folder                        release of ASTMT and MTI-Net  release of ATRC, used by InvPT's successors
============================  ============================  ============================================
``images``                    ``.jpg``, 480 x 640           ``.png``, cropped to 425 x 560
``segmentation``              ``.png``, 0 void, 1..40       the same
``depth``                     ``.npy``, metres, 0 invalid   the same
``normals``                   ``.npy``, -1..1               ``.png``, 2 v / 255 - 1
``edge``                      ``.npy``, 0 or 1              ``.png``, 0 or 255
``gt_sets/{train,val}.txt``   795 and 654 ids               the same
============================  ============================  ============================================

The suffix of the files in a folder says which release it is of.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.axes import Axes, axes_by_depth, in_frame
from training.data.config import SourceConfig
from training.data.encodings import DecodedFile, read_pixels
from training.data.errors import LabelError, SourceError
from training.data.files import FileReader, existing_root, split_ids
from training.data.maps import DepthMap, EdgeMap, LabelMap, NormalsMap, PixelMap
from training.data.npy import read_npy
from training.data.reader import label_part, maps_to_read, native
from training.label_spaces import IGNORE_LABEL
from training.tasks import Task

FOLDERS = {"semseg": "segmentation", "depth": "depth", "normals": "normals", "edges": "edge"}
_SPACES = {"semseg": "nyu40"}
_SUFFIXES = {
    "images": (".jpg", ".png"),
    "segmentation": (".png",),
    "depth": (".npy",),
    "normals": (".npy", ".png"),
    "edge": (".npy", ".png"),
}
_LOOKED_AT = 32
"""Images whose depth is asked for the frame of the normals."""


class NyudReader(FileReader):
    """Reads one split (``train`` or ``val``) of an NYUD_MT folder for a network with ``tasks``.

    Raises:
        SourceError: a folder, a file that the split lists, or a sign of the normals' frame is missing.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        super().__init__(config, size)
        config = native(config, _SPACES)
        self._root = existing_root(config, "images/, gt_sets/ and one folder per task (NYUD_MT)")
        self.ids = split_ids(self._root / "gt_sets", config)
        self.images = self._files("images")
        self.labels = [{} for _ in self.ids]
        maps = [name for name in maps_to_read(config, tasks) if name in FOLDERS]
        if config.read is None:
            maps = [name for name in maps if (self._root / FOLDERS[name]).is_dir()]
        axes = self._axes(config) if "normals" in maps else "right up"
        decoders: dict[str, Callable[[Path], PixelMap]] = {
            "semseg": read_segmentation,
            "depth": read_depth,
            "normals": partial(read_normals, axes=axes),
            "edges": read_edges,
        }
        for name in maps:
            part = label_part(config, name, tasks)
            for files, path in zip(self.labels, self._files(FOLDERS[name]), strict=True):
                files[name] = DecodedFile(path, decoders[name], part)

    def _files(self, folder: str) -> list[Path]:
        """The file of each id in ``folder``, all of the suffix that the first one has."""
        path, suffixes = self._root / folder, _SUFFIXES[folder]
        suffix = next((s for s in suffixes if (path / f"{self.ids[0]}{s}").is_file()), suffixes[0])
        paths = [path / f"{name}{suffix}" for name in self.ids]
        self._require(paths, f"files of {folder}/")
        return paths

    def _axes(self, config: SourceConfig) -> Axes:
        if config.normals_axes != "auto":
            return config.normals_axes
        found = None
        if (self._root / "depth").is_dir():
            step = max(1, len(self.ids) // _LOOKED_AT)
            files = list(zip(self._files("normals"), self._files("depth"), strict=True))[::step]
            found = axes_by_depth((_raw_normals(normals), _metres(depth)) for normals, depth in files)
        if found is None:
            raise SourceError(
                f"source {config.label!r}: depth does not say where the axes of "
                f"{self._root / 'normals'} point; look at a floor and a wall and set normals_axes"
            )
        return found


def read_segmentation(path: Path) -> LabelMap:
    """Classes of ``segmentation/``: 0 is void, 1..40 become 0..39."""
    ids = read_pixels(path, ("L", "P"), "a segmentation")
    if ids.max() > 40:
        raise LabelError(path, f"holds class {ids.max()}; NYUD_MT has 0 (void) to 40")
    classes = ids.astype(np.uint8) - np.uint8(1)  # 0 wraps round to 255, which is void here
    assert IGNORE_LABEL == 255
    return LabelMap.of(torch.from_numpy(classes))


def _metres(path: Path) -> Tensor:
    metres = read_npy(path, 2).nan_to_num(0.0, 0.0, 0.0)
    if metres.numel() and metres.min() < 0:
        raise LabelError(path, f"holds a depth of {metres.min():g} m; 0 marks invalid pixels")
    return metres


def read_depth(path: Path) -> DepthMap:
    """Metres of ``depth/``, 0 (or not finite) invalid."""
    return DepthMap.of(_metres(path)[None])


def _raw_normals(path: Path) -> Tensor:
    """Normals as the file has them, [3, H, W]."""
    if path.suffix == ".npy":
        vectors = read_npy(path, 3)
        if vectors.shape[-1] != 3:
            raise LabelError(path, f"has shape {list(vectors.shape)}, normals are [height, width, 3]")
        if vectors.numel() and vectors.nan_to_num(0.0).abs().max() > 1.01:
            raise LabelError(path, "holds components outside -1..1, which are no normals")
        return vectors.permute(2, 0, 1)
    return decode_normals(path)


def decode_normals(path: Path) -> Tensor:
    """An 8-bit RGB file of normals, 2 v / 255 - 1, as [3, H, W] in the file's own frame; black is invalid."""
    pixels = torch.from_numpy(read_pixels(path, ("RGB",), "a normals")).permute(2, 0, 1)
    return (pixels / 127.5 - 1).masked_fill_((pixels == 0).all(0), 0.0)


def read_normals(path: Path, axes: Axes) -> NormalsMap:
    """Normals of ``normals/`` in this project's frame."""
    return NormalsMap.of(in_frame(_raw_normals(path), axes))


def read_edges(path: Path) -> EdgeMap:
    """Edges of ``edge/``: 1 where the file has more than half of its white."""
    if path.suffix == ".npy":
        values = read_npy(path, 2)
    else:
        values = torch.from_numpy(read_pixels(path, ("L",), "an edge")) / 255
    return EdgeMap.of((values > 0.5).float()[None])
