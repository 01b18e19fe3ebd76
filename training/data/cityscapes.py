"""Cityscapes as it is published: semantics (19 classes), disparity and parts (10 classes).

==============================================================  ==========================================
``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``                    images, 1024 x 2048
``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``                     34 ids, of which 19 are scored
``disparity/SPLIT/CITY/*_disparity.png``                        16-bit, 256 d + 1, 0 invalid
``gtFinePanopticParts/SPLIT/CITY/*_gtFinePanopticParts.tif``    Panoptic Parts, arXiv 2004.07944
==============================================================  ==========================================

The setting is that of Auto-lambda (arXiv 2202.03091) and of impartial auxiliary learning: parts of people
(torso, head, arms, legs) and of cars, trucks and buses (windows, wheels, lights, license plate, chassis), and
everything else, void included, as background. Disparity is inverse depth up to a scale (baseline times focal
length), so it is read as the map ``disparity`` of a network with the task ``depth``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.config import SourceConfig
from training.data.encodings import DecodedFile, read_pixels
from training.data.errors import LabelError, SourceError
from training.data.files import FileReader, existing_root
from training.data.maps import DisparityMap, LabelMap, PixelMap
from training.data.reader import label_part, maps_to_read, native
from training.label_spaces import IGNORE_LABEL, LABEL_SPACES
from training.tasks import Task

_SPACES = {"semseg": "cityscapes", "parsing": "cityscapes_parts"}
_IMAGE = "leftImg8bit"
_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Ids in the files of the 19 classes, in their order."""
_LAST_ID = 33
_PEOPLE, _VEHICLES = (24, 25), (26, 27, 28)
_PARTS = {
    **{(person, part): part for person in _PEOPLE for part in (1, 2, 3, 4)},
    **{(vehicle, part): 4 + part for vehicle in _VEHICLES for part in (1, 2, 3, 4, 5)},
}
"""Class of each (semantic id, part id) of Panoptic Parts; everything else is background."""


class CityscapesReader(FileReader):
    """Reads one split (``train`` or ``val``) of a Cityscapes folder for a network with ``tasks``.

    Raises:
        SourceError: a folder, or the label file of an image, is missing.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        super().__init__(config, size)
        config = native(config, _SPACES)
        self._split = config.split
        self._root = existing_root(config, f"{_IMAGE}/, gtFine/, disparity/ and gtFinePanopticParts/")
        images = self._root / _IMAGE / config.split
        self.images = sorted(images.glob(f"*/*_{_IMAGE}.png"))
        if not self.images:
            raise SourceError(
                f"source {config.label!r}: no images in {images}; they go there as CITY/ID_{_IMAGE}.png"
            )
        self.ids = [path.name.removesuffix(f"_{_IMAGE}.png") for path in self.images]
        self.labels = [{} for _ in self.ids]
        for name in maps_to_read(config, tasks):
            if name not in _FILES:
                continue
            folder, suffix, decode = _FILES[name]
            if config.read is None and not (self._root / folder).is_dir():
                continue
            paths = [
                self._root / folder / config.split / image.parent.name / f"{sample_id}_{suffix}"
                for image, sample_id in zip(self.images, self.ids, strict=True)
            ]
            self._require(paths, f"files of {folder}/")
            part = label_part(config, name, tasks)
            for files, path in zip(self.labels, paths, strict=True):
                files[name] = DecodedFile(path, decode, part)


def read_semseg(path: Path) -> LabelMap:
    """The 19 scored classes, everything else void."""
    ids = read_pixels(path, ("L", "P"), "a labelIds")
    if (wrong := (ids > _LAST_ID) & (ids != IGNORE_LABEL)).any():
        raise LabelError(path, f"holds id {ids[wrong].max()}; labelIds files have 0 to {_LAST_ID} and 255")
    table = np.full(256, IGNORE_LABEL, np.uint8)
    table[list(_IDS)] = np.arange(len(_IDS))
    return LabelMap.of(torch.from_numpy(table[ids]))


def read_disparity(path: Path) -> DisparityMap:
    """Disparity in pixels of the full-size image, plus 1/256: its 0 means infinitely far, ours missing."""
    pixels = read_pixels(path, ("I;16", "I"), "a disparity").astype(np.float32)
    return DisparityMap.of(torch.from_numpy(pixels / 256)[None])


def read_parts(path: Path) -> LabelMap:
    """The nine parts of Panoptic Parts' people and vehicles, and background."""
    semantic, part = split_uids(read_pixels(path, ("I", "I;16"), "a panoptic parts"))
    if semantic.max() > _LAST_ID:
        raise LabelError(path, f"holds semantic id {semantic.max()}; Cityscapes has 0 to {_LAST_ID}")
    classes = np.zeros(semantic.shape, np.uint8)
    for (thing, piece), label in _PARTS.items():
        classes[(semantic == thing) & (part == piece)] = label
    assert classes.max() < len(LABEL_SPACES["cityscapes_parts"].labels)
    return LabelMap.of(torch.from_numpy(classes))


def split_uids(uids: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Semantic and part ids of Panoptic Parts' universal ids; part 0 where there is none.

    Up to two digits are a semantic id, three more an instance, two more a part.
    """
    wide = uids.astype(np.int64)
    digits = np.select([wide < 100, wide < 100_000], [wide, wide // 1000], wide // 100_000)
    return digits, np.where(wide >= 100_000, wide % 100, 0)


_FILES: dict[str, tuple[str, str, Callable[[Path], PixelMap]]] = {
    "semseg": ("gtFine", "gtFine_labelIds.png", read_semseg),
    "disparity": ("disparity", "disparity.png", read_disparity),
    "parsing": ("gtFinePanopticParts", "gtFinePanopticParts.tif", read_parts),
}
"""Folder, end of the name and reader of each map."""
