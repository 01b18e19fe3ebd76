"""Sources whose records are files: an image and, for each map it has, a label file."""

import codecs
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from training.data.config import SourceConfig
from training.data.encodings import MapFile, read_image_file, read_with_focal
from training.data.errors import LabelError, SourceError
from training.data.maps import PixelMap
from training.data.sample import Record

_CLOSEST_CROP = 2
"""A crop takes at least half of each side (by default): pixels it can use, per pixel of the network."""
_ASPECT_TOLERANCE = 0.05
"""Largest |ln| between the aspect ratios of a map and its image: sizes are rounded to whole pixels."""


class FileReader:
    """Records by index from files; a kind of source says where the files are.

    Attributes:
        ids: name of each record.
        images: file of each image.
        labels: label files of each record, by map name.
    """

    ids: list[str]
    images: list[Path]
    labels: list[dict[str, MapFile]]

    def __init__(self, config: SourceConfig, size: tuple[int, int]) -> None:
        self._enough = (_CLOSEST_CROP * size[0], _CLOSEST_CROP * size[1])
        self._name = config.label

    def read(self, index: int) -> Record:
        """Record ``index``: the image and the maps it has, each at its file's resolution."""
        image, focal = read_with_focal(self.images[index], self._enough)
        record: Record = {"id": self.ids[index], "image": image}
        if focal is not None:
            record["focal"] = focal
        for name, file in self.labels[index].items():
            record[name] = _read_fitting(file, record["image"])
        return record

    def problems(self, index: int) -> list[LabelError]:
        """The image, or the label files of the image, that cannot be used."""
        try:
            image = read_image_file(self.images[index], self._enough)
        except LabelError as error:
            return [error]
        found = []
        for file in self.labels[index].values():
            try:
                _read_fitting(file, image)
            except LabelError as error:
                found.append(error)
        return found

    def _require(self, paths: Sequence[Path], what: str) -> None:
        """Raises `SourceError` naming the first of ``paths`` that is not a file."""
        absent = [path for path in paths if not path.is_file()]
        if absent:
            raise SourceError(
                f"source {self._name!r}: {len(absent)} of {len(paths)} {what} missing, "
                f"the first is {absent[0]}"
            )


def _read_fitting(file: MapFile, image: Tensor) -> PixelMap:
    """The map in ``file``, checked to have the image's proportions."""
    labels = file.read()
    height, width = labels.shape[-2:]
    if abs(math.log(width / height * image.shape[-2] / image.shape[-1])) > _ASPECT_TOLERANCE:
        raise LabelError(
            file.path,
            f"is {width}x{height}, its image {image.shape[-1]}x{image.shape[-2]}: other proportions",
        )
    return labels


def existing_root(config: SourceConfig, contents: str) -> Path:
    """The folder ``config.root``.

    Raises:
        SourceError: it is not set or does not exist; ``contents`` says what should be in it.
    """
    if not config.root:
        raise SourceError(f"source {config.label!r} has no root; set root to a folder with {contents}")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise SourceError(f"source {config.label!r}: {root} is not a folder; set root to one with {contents}")
    return root


def composed(name: str) -> str:
    """``name`` in the one form (NFC) of those that look alike and are other bytes."""
    return unicodedata.normalize("NFC", name)


def split_ids(folder: Path, config: SourceConfig) -> list[str]:
    """The ids in ``folder/<split>.txt``, one a line.

    Lines may be UTF-8 or, with a byte order mark, UTF-16; ids may have spaces within.

    Raises:
        SourceError: there is no such file, it is not text, it is empty, or it lists an id twice.
    """
    path = folder / f"{config.split}.txt"
    if not path.is_file():
        others = sorted(other.stem for other in path.parent.glob("*.txt"))
        there = f"the folder has {', '.join(others)}" if others else "write one id a line into it"
        raise SourceError(f"source {config.label!r}: {path} does not exist; {there}")
    ids = [line.strip() for line in _text(path, config).splitlines() if line.strip()]
    if not ids:
        raise SourceError(f"source {config.label!r}: {path} lists no ids; write one id a line into it")
    twice = [name for name, count in Counter(map(composed, ids)).items() if count > 1]
    if twice:
        raise SourceError(
            f"source {config.label!r}: {path} lists {twice[0]!r} twice; to draw images more often use repeat"
        )
    return ids


def _text(path: Path, config: SourceConfig) -> str:
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(
            f"source {config.label!r}: {path} is not text in UTF-8 or UTF-16 ({error.reason} at byte "
            f"{error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise SourceError(
            f"source {config.label!r}: {path} has zero bytes, it may be UTF-16 without a byte order mark; "
            "save it as UTF-8"
        )
    return text
