"""The partial-label folder: ``images/ID.jpg``, ``<task>/ID.png`` where the label exists, ``splits/NAME.txt``.

============================  =========================================================================
``semseg``, ``parsing``       8-bit class ids, 255 ignore
``saliency``                  8-bit, 255 p
``depth``                     16-bit millimetres along the optical axis, 0 invalid
``disparity``                 8-bit relative inverse depth, 1..255, larger is nearer, 0 invalid
``normals``                   8-bit RGB, n = v / 127.5 - 1, (0, 0, 0) invalid; x right, y up, z towards
                              the camera
============================  =========================================================================

Maps may be smaller than the photo. A missing file is a missing label.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from training.data.config import SourceConfig
from training.data.encodings import LabelFile, read_photo
from training.data.errors import LabelError, SourceError
from training.data.maps import PixelMap, map_types
from training.data.reader import maps_to_read
from training.data.sample import Record
from training.data.translate import parts_where_nobody_is, translation
from training.tasks import LABEL_SPACES, Task

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
_CLOSEST_CROP = 2
"""A crop takes at least half of each side (by default): pixels it can use, per pixel of the network."""
_ASPECT_TOLERANCE = 0.05
"""Largest |ln| between the aspect ratios of a map and its photo: sizes are rounded to whole pixels."""


class FolderReader:
    """Reads one split of a partial-label folder for a network with ``tasks``.

    Raises:
        SourceError: the folder, its split file or a photo is missing, or ``config`` does not fit the folder.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        self._enough = (_CLOSEST_CROP * size[0], _CLOSEST_CROP * size[1])
        self._name = config.label
        self._root = _existing_root(config)
        self.ids = _split_ids(self._root, config)
        self._photos = self._find_photos()
        self.labels: list[dict[str, LabelFile]] = [{} for _ in self.ids]
        self._check_folders(config, tasks)
        for name in maps_to_read(config, tasks):
            self._find_labels(name, tasks, config)
        spaces = {task.name: task.space for task in tasks}
        semseg = spaces.get("semseg")
        derives = config.parts_from_people and semseg is not None and "parsing" in spaces
        self._person = semseg.labels.index("person") if derives and semseg is not None else None

    def read(self, index: int) -> Record:
        """Record ``index``: the photo and the maps it has, each at its file's resolution."""
        record: Record = {"id": self.ids[index], "image": read_photo(self._photos[index], self._enough)}
        for name, file in self.labels[index].items():
            record[name] = _read_fitting(file, record["image"])
        if self._person is not None and "semseg" in record and "parsing" not in record:
            record["parsing"] = parts_where_nobody_is(record["semseg"], self._person)
        return record

    def problems(self, index: int) -> list[LabelError]:
        """The photo, or the label files of the photo, that cannot be used."""
        try:
            photo = read_photo(self._photos[index], self._enough)
        except LabelError as error:
            return [error]
        found = []
        for file in self.labels[index].values():
            try:
                _read_fitting(file, photo)
            except LabelError as error:
                found.append(error)
        return found

    def _find_photos(self) -> list[Path]:
        folder = self._root / "images"
        if not folder.is_dir():
            raise SourceError(f"source {self._name!r}: {folder} does not exist; photos go there as ID.jpg")
        found = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in _PHOTO_SUFFIXES}
        absent = [name for name in self.ids if name not in found]
        if absent:
            raise SourceError(
                f"source {self._name!r}: {len(absent)} id(s) of the split have no photo, the first is "
                f"{folder / absent[0]}.jpg; add the photo or take the id out of the split file"
            )
        return [found[name] for name in self.ids]

    def _check_folders(self, config: SourceConfig, tasks: Sequence[Task]) -> None:
        for name in config.read or ():
            if not (self._root / name).is_dir():
                raise SourceError(
                    f"source {self._name!r} is told to read {name!r}, but {self._root / name} does not exist"
                )
        for task in tasks:
            folder = self._root / task.name
            unread = config.read is not None and task.name not in config.read
            if task.space is not None and task.name not in config.tasks and not unread and folder.is_dir():
                raise SourceError(
                    f"source {self._name!r}: {folder} holds class ids of an unknown label space; "
                    f"set tasks: {{{task.name}: one of {', '.join(LABEL_SPACES)}}}, or leave it out of read"
                )

    def _find_labels(self, name: str, tasks: Sequence[Task], config: SourceConfig) -> None:
        folder = self._root / name
        if not folder.is_dir():
            return
        kind = map_types(tasks)[name]
        space = {task.name: task.space for task in tasks}.get(name)
        classes, table = None, None
        if space is not None:
            theirs = config.tasks.get(name, space.name)
            classes, table = len(LABEL_SPACES[theirs].labels), translation(theirs, space.name)
        present = {path.stem for path in folder.iterdir() if path.suffix == ".png"}
        for sample_id, files in zip(self.ids, self.labels, strict=True):
            if sample_id in present:
                files[name] = LabelFile(folder / f"{sample_id}.png", kind, classes, table)


def _read_fitting(file: LabelFile, photo: Tensor) -> PixelMap:
    """The map in ``file``, checked to have the photo's proportions."""
    labels = file.read()
    height, width = labels.shape[-2:]
    if abs(math.log(width / height * photo.shape[-2] / photo.shape[-1])) > _ASPECT_TOLERANCE:
        raise LabelError(
            file.path,
            f"is {width}x{height}, its photo {photo.shape[-1]}x{photo.shape[-2]}: other proportions",
        )
    return labels


def _existing_root(config: SourceConfig) -> Path:
    if not config.root:
        raise SourceError(
            f"source {config.label!r} has no root; set root to a folder with images/ and splits/"
        )
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise SourceError(
            f"source {config.label!r}: {root} is not a folder; set root to one with images/ and splits/"
        )
    return root


def _split_ids(root: Path, config: SourceConfig) -> list[str]:
    path = root / "splits" / f"{config.split}.txt"
    if not path.is_file():
        others = sorted(other.stem for other in path.parent.glob("*.txt"))
        there = f"the folder has {', '.join(others)}" if others else "write one id a line into it"
        raise SourceError(f"source {config.label!r}: {path} does not exist; {there}")
    ids = path.read_text(encoding="utf-8").split()
    if not ids:
        raise SourceError(f"source {config.label!r}: {path} lists no ids; write one id a line into it")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise SourceError(
            f"source {config.label!r}: {path} lists {twice[0]!r} twice; to draw photos more often use repeat"
        )
    return ids
