"""The partial-label folder: ``images/ID.jpg``, ``<task>/ID.png`` where the label exists, ``splits/NAME.txt``.

============================  =========================================================================
``semseg``, ``parsing``       8-bit class ids, 255 ignore
``saliency``, ``edges``       8-bit, 255 p; an alpha channel, where there is one, is 0 where p is not known
``depth``                     16-bit millimetres along the optical axis, 0 invalid
``disparity``                 8-bit relative inverse depth, 1..255, larger is nearer, 0 invalid
``normals``                   8-bit RGB, n = v / 127.5 - 1, (0, 0, 0) invalid; x right, y up, z towards
                              the camera
============================  =========================================================================

Images are of any format that serving reads. Maps may be smaller than the image. A missing file is a missing
label. Names that differ only in how Unicode composes their letters, as macOS and others do, are the same.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from mtcp_serve.inference.images import FORMATS, IMAGE_SUFFIXES
from training.data.config import SourceConfig
from training.data.encodings import LabelFile
from training.data.errors import SourceError
from training.data.files import FileReader, composed, existing_root, split_ids
from training.data.maps import LabelMap, map_types
from training.data.reader import label_part, maps_to_read, source_part
from training.data.sample import Record
from training.label_spaces import IGNORE_LABEL, LABEL_SPACES
from training.tasks import Task

log = logging.getLogger(__name__)


def _hint(absent: str) -> str:
    if Path(absent).suffix.lower() in IMAGE_SUFFIXES:
        return "; ids are file names without their ending"
    return "; one id a line" if " " in absent or "\t" in absent else ""


class FolderReader(FileReader):
    """Reads one split of a partial-label folder for a network with ``tasks``.

    Raises:
        SourceError: the folder, its split file or an image is missing, or ``config`` does not fit the folder.
    """

    def __init__(self, config: SourceConfig, tasks: Sequence[Task], size: tuple[int, int]) -> None:
        super().__init__(config, size)
        self._root = existing_root(config, "images/ and splits/")
        self.ids = split_ids(self._root / "splits", config)
        self.images = self._find_images()
        self.labels = [{} for _ in self.ids]
        bare = tuple(map(composed, config.shows_no_class))
        self._bare = {name for name in self.ids if composed(name).startswith(bare)}
        if config.shows_no_class and not self._bare:
            log.warning("source %r: no id begins as shows_no_class says", self._name)
        self._check_folders(config, tasks)
        for name in maps_to_read(config, tasks):
            self._find_labels(name, tasks, config)
        spaces = {task.name: task.space for task in tasks}
        semseg = spaces.get("semseg")
        derives = config.parts_from_people and semseg is not None and "parsing" in spaces
        self._nobody = None
        if derives and semseg is not None:
            self._nobody = torch.from_numpy(semseg.targets.without(semseg.labels.index("person")))

    def read(self, index: int) -> Record:
        """Record ``index``: the image and the maps it has, each at its file's resolution."""
        record = super().read(index)
        if self._nobody is not None and "semseg" in record and "parsing" not in record:
            nobody = self._nobody[record["semseg"].plain().long()]
            record["parsing"] = LabelMap.of(torch.where(nobody, 0, IGNORE_LABEL).to(torch.uint8))
        return record

    def _find_images(self) -> list[Path]:
        folder = self._root / "images"
        if not folder.is_dir():
            raise SourceError(f"source {self._name!r}: {folder} does not exist; images go there as ID.jpg")
        ids = [composed(name) for name in self.ids]
        wanted = set(ids)
        found: dict[str, Path] = {}
        others: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            taken = found if path.suffix.lower() in IMAGE_SUFFIXES else others
            stem = composed(path.stem)
            if taken is found and stem in found and stem in wanted:
                raise SourceError(
                    f"source {self._name!r}: {found[stem]} and {path.name} have one id; keep one of them"
                )
            taken[stem] = path
        absent = [name for name in ids if name not in found]
        if absent and absent[0] in others:
            raise SourceError(
                f"source {self._name!r}: {others[absent[0]]} is of no format that is read "
                f"({', '.join(FORMATS)}); convert it"
            )
        if absent:
            raise SourceError(
                f"source {self._name!r}: {len(absent)} id(s) of the split have no image, the first is "
                f"{folder / absent[0]}.jpg; add the image or take the id out of the split file"
                + _hint(absent[0])
            )
        self._stems = found.keys()
        return [found[name] for name in ids]

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
        task = next((task for task in tasks if task.name == name and task.space is not None), None)
        theirs = None if task is None else source_part(config, task)
        classes = None if theirs is None else len(theirs.labels)
        part = label_part(config, name, tasks)
        present = self._label_paths(folder)
        for sample_id, files in zip(self.ids, self.labels, strict=True):
            path = present.get(composed(sample_id))
            if path is not None:
                bare = name == "semseg" and sample_id in self._bare
                files[name] = LabelFile(path, kind, classes, part, bare)

    def _label_paths(self, folder: Path) -> dict[str, Path]:
        """The label files in ``folder`` by composed id; what belongs to no image of the source is named."""
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        named = {composed(path.stem): path for path in files if path.suffix.lower() == ".png"}
        known = self._stems & named.keys()
        lost = [path.name for path in files if composed(path.stem) not in known]
        if not lost:
            return named
        message = (
            f"source {self._name!r}: {len(lost)} of {len(files)} files in {folder} match no image in "
            f"{self._root / 'images'} (the first is {lost[0]}); a label has its image's name and ends in .png"
        )
        if len(lost) == len(files):
            raise SourceError(message)
        log.warning("%s", message)
        return named
