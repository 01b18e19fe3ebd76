"""PASCAL_MT as it is published: PASCAL-Context with semantics, people's parts, saliency, normals and edges.

====================================  ==================================================================
``JPEGImages/*.jpg``                  images
``semseg/VOC12/*.png``, else          21 VOC classes, 255 void
``semseg/pascal-context/*.png``
``human_parts/*.mat``                 24 parts of PASCAL-Part's people, joined to 6 (`PARTS`) and background
``sal_distill/*.png``                 salient where above half of white
``normals_distill/*.png``             2 v / 255 - 1, valid on the classes of NYUv2 (`NORMALS_CLASSES`)
``pascal-context/trainval/*.mat``     459 classes as ``LabelMap``; edges are their thinned boundaries
``ImageSets/Context/{train,val}.txt`` 4998 and 5105 ids
====================================  ==================================================================

The published code flips and rotates the normals such that their frame is "left up" or "right down", z towards
the camera; the two differ by half a turn about the optical axis, so no metric of this data set alone depends
on the choice. Which it is has not been checked here on the files: before mixing these normals with others,
look at a floor and set ``normals_axes``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat

from training.data.axes import Axes, in_frame
from training.data.boundaries import boundaries
from training.data.config import SourceConfig
from training.data.context_classes import NORMALS_CLASSES
from training.data.encodings import DecodedFile, check_ids, read_pixels, readable
from training.data.errors import LabelError
from training.data.files import FileReader, existing_root, split_ids
from training.data.maps import EdgeMap, LabelMap, NormalsMap, SaliencyMap
from training.data.nyud import decode_normals
from training.data.reader import label_part, maps_to_read, native
from training.label_spaces import IGNORE_LABEL, LABEL_SPACES
from training.tasks import Task

_SPACES = {"semseg": "voc", "parsing": "pascal_parts"}
_FOLDERS = {
    "semseg": "semseg",
    "parsing": "human_parts",
    "saliency": "sal_distill",
    "normals": "normals_distill",
    "edges": "pascal-context/trainval",
}
_PERSON = 15
"""Class of people in PASCAL-Part, as in VOC."""
_HEAD = ("hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose")
PARTS: dict[str, str] = {
    **dict.fromkeys(_HEAD, "head"),
    **dict.fromkeys(("torso", "neck"), "torso"),
    **dict.fromkeys(("luarm", "ruarm"), "upper arm"),
    **dict.fromkeys(("llarm", "rlarm", "lhand", "rhand"), "lower arm"),
    **dict.fromkeys(("luleg", "ruleg"), "upper leg"),
    **dict.fromkeys(("llleg", "rlleg", "lfoot", "rfoot"), "lower leg"),
}
"""Class of each of the 24 parts of PASCAL-Part's people, as in ASTMT (arXiv 1904.08918)."""


class PascalReader(FileReader):
    """Reads one split (``train`` or ``val``) of a PASCAL_MT folder for a network with ``tasks``.

    Raises:
        SourceError: a folder, or a file that the split lists, is missing.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        super().__init__(config, size)
        config = native(config, _SPACES)
        self._root = existing_root(config, "JPEGImages/, ImageSets/Context/ and the labels (PASCAL_MT)")
        self.ids = split_ids(self._root / "ImageSets" / "Context", config)
        self.images = self._files("JPEGImages", ".jpg")
        self.labels = [{} for _ in self.ids]
        maps = [name for name in maps_to_read(config, tasks) if name in _FOLDERS]
        if config.read is None:
            maps = [name for name in maps if (self._root / _FOLDERS[name]).is_dir()]
        axes: Axes = "left up" if config.normals_axes == "auto" else config.normals_axes
        for name in maps:
            part = label_part(config, name, tasks)
            for record, file in zip(self.labels, self._label_files(name, axes), strict=True):
                record[name] = replace(file, part=part)

    def _label_files(self, name: str, axes: Axes) -> Sequence[DecodedFile]:
        if name == "semseg":
            return [DecodedFile(path, read_semseg) for path in self._semseg_files()]
        if name == "parsing":
            paths = self._files("human_parts", ".mat")
            return [
                DecodedFile(path, partial(read_parts, image_path=image))
                for path, image in zip(paths, self.images, strict=True)
            ]
        if name == "saliency":
            return [DecodedFile(path, read_saliency) for path in self._files("sal_distill", ".png")]
        context = self._files(_FOLDERS["edges"], ".mat")
        if name == "edges":
            return [DecodedFile(path, read_edges) for path in context]
        return [
            DecodedFile(path, partial(read_normals, context=classes, axes=axes))
            for path, classes in zip(self._files("normals_distill", ".png"), context, strict=True)
        ]

    def _files(self, folder: str, suffix: str) -> list[Path]:
        paths = [self._root / folder / f"{name}{suffix}" for name in self.ids]
        self._require(paths, f"files of {folder}/")
        return paths

    def _semseg_files(self) -> list[Path]:
        """VOC's own masks where they exist, else those cut out of PASCAL-Context."""
        voc, context = (self._root / "semseg" / folder for folder in ("VOC12", "pascal-context"))
        paths = [
            path if (path := voc / f"{name}.png").is_file() else context / f"{name}.png" for name in self.ids
        ]
        self._require(paths, "masks (neither in semseg/VOC12/ nor in semseg/pascal-context/)")
        return paths


def read_semseg(path: Path) -> LabelMap:
    """The 21 classes of VOC, 255 void."""
    ids = read_pixels(path, ("L", "P"), "a mask")
    check_ids(path, ids, len(LABEL_SPACES["voc"].labels))
    return LabelMap.of(torch.from_numpy(ids))


def read_saliency(path: Path) -> SaliencyMap:
    """1 above half of white, 0 elsewhere."""
    pixels = read_pixels(path, ("L", "P"), "a saliency")
    return SaliencyMap.of(torch.from_numpy(pixels / 255 > 0.5).float()[None])


def read_mat(path: Path, key: str) -> Any:
    """The variable ``key`` of a MATLAB file, structures as dicts and lists.

    Raises:
        LabelError: the file is damaged or has no such variable.
    """
    try:
        contents = loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy's readers raise a dozen types on damaged files
        raise LabelError(path, f"not a readable .mat file ({error})") from error
    if key not in contents:
        raise LabelError(path, f"has no variable {key!r}")
    return contents[key]


def _label_map(path: Path) -> NDArray[np.int64]:
    regions = np.asarray(read_mat(path, "LabelMap"))
    if regions.ndim != 2 or regions.dtype.kind not in "fiu":
        raise LabelError(path, "its LabelMap is no [height, width] array of class ids")
    return regions.astype(np.int64)


def read_edges(path: Path) -> EdgeMap:
    """Thin boundaries of the 459 classes."""
    return EdgeMap.of(torch.from_numpy(boundaries(_label_map(path)))[None])


def read_normals(path: Path, context: Path, axes: Axes) -> NormalsMap:
    """Distilled normals in this project's frame, on the classes that have them (``context``: a LabelMap)."""
    vectors, classes = decode_normals(path), _label_map(context)
    if vectors.shape[1:] != classes.shape:
        raise LabelError(
            path, f"is {vectors.shape[2]}x{vectors.shape[1]}, {context} {classes.shape[1]}x{classes.shape[0]}"
        )
    known = torch.from_numpy(np.isin(classes, NORMALS_CLASSES))
    return NormalsMap.of(in_frame(vectors * known, axes))


def read_parts(path: Path, image_path: Path) -> LabelMap:
    """Parts of people; all ignore where the annotation has none, as in the published protocol.

    Later parts cover earlier ones, and what belongs to no part is background. ``image_path`` gives the size
    where the annotation has no object at all.
    """
    annotation = read_mat(path, "anno")
    if not isinstance(annotation, Mapping) or "objects" not in annotation:
        raise LabelError(path, "its 'anno' has no 'objects', it is not a file of PASCAL-Part")
    objects = _items(annotation["objects"])
    try:
        with readable(image_path) as image:
            parts = np.zeros((image.height, image.width), np.uint8)
        if objects:
            parts = np.zeros_like(objects[0]["mask"], np.uint8)
        for thing in objects:
            for part in _items(thing["parts"]) if thing["class_ind"] == _PERSON else ():
                parts[np.asarray(part["mask"], bool)] = _part_id(path, part["part_name"])
    except (KeyError, TypeError, IndexError) as error:
        raise LabelError(path, f"its objects are not those of PASCAL-Part ({error!r})") from error
    if not parts.any():
        parts[:] = IGNORE_LABEL
    return LabelMap.of(torch.from_numpy(parts))


def _items(value: Any) -> list[Mapping[str, Any]]:
    """A MATLAB structure array as a list: a single structure comes as itself, none as an empty array."""
    return [value] if isinstance(value, Mapping) else list(value)


def _part_id(path: Path, name: str) -> int:
    if name not in PARTS:
        raise LabelError(path, f"a person has a part {name!r}; known parts: {', '.join(PARTS)}")
    return LABEL_SPACES["pascal_parts"].labels.index(PARTS[name])
