"""What the command line is to work on, and where the results of each go."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path
from typing import Final

from mtcp_serve.errors import MtcpServeError
from mtcp_serve.inference.images import IMAGE_SUFFIXES
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.results import read_metadata

VIDEO_SUFFIXES: Final = frozenset(
    (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv")
)
"""Endings of the files that are taken for videos."""


class InputError(MtcpServeError):
    """What was named cannot be worked on."""


@dataclass(frozen=True)
class Item:
    """An image or a video, and the folder for its results; or a camera or address, whichever is there."""

    path: Path
    folder: Path
    address: Address | None = None
    """The camera or address that it is instead of a file; ``path`` is then what it is called."""

    @property
    def shown(self) -> str:
        """For messages."""
        return str(self.path) if self.address is None else self.address.shown

    @property
    def video(self) -> bool:
        """Whether it is a video, by its name."""
        return self.address is None and self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass
class Inputs:
    """What was found; ``others`` are files in folders that are not images, ``folders`` and ``links`` to
    folders were left alone."""

    items: list[Item]
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)


def collect(paths: Iterable[Path | Address], out: Path, recursive: bool) -> Inputs:
    """The images and videos that ``paths`` name, and the images in the folders that they name.

    Those of a camera or address go to a folder that is called like the file there.

    The results of a file go to ``out/STEM``, those of a file in a folder to the same place in ``out`` that it
    has in the folder. Hidden files and folders are skipped, and so are the folders of earlier results;
    links to folders are not followed.

    Raises:
        InputError: a path is neither a file nor a folder, a folder cannot be read, nothing was found, the
            results of a file would go to ``out`` itself or beside it, those of two to the same place, or
            nothing can be written to ``out``.
    """
    found = Inputs([])
    for path in paths:
        if isinstance(path, Address):
            found.items.append(Item(Path(path.stem), out / path.stem, path))
        elif path.is_dir():
            _look(path, out, recursive, found)
        elif path.is_file():
            if path.stem in (".", ".."):
                raise InputError(f"the results of {path} cannot be called {path.stem!r}; rename the file")
            found.items.append(Item(path, out / path.stem))
        else:
            raise InputError(f"{path} is neither a file nor a folder")
    found.items = list(
        {(item.address or item.path.resolve(), item.folder): item for item in found.items}.values()
    )
    if not found.items:
        inside = "; --recursive looks into the folders in it" if found.folders else ""
        raise InputError(f"there is no image in {' or '.join(map(str, paths))}{inside}")
    _check_apart(found.items)
    _check_writable(out)
    return found


def _look(top: Path, out: Path, recursive: bool, found: Inputs) -> None:
    for folder, folders, files in _walk(top):
        folders[:] = sorted(name for name in folders if not read_metadata(folder / name))
        found.links += [folder / name for name in folders if (folder / name).is_symlink()]
        for name in files:
            path = folder / name
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                found.items.append(Item(path, out / path.relative_to(top).with_suffix("")))
            else:
                found.others.append(path)
        if not recursive:
            found.folders += [folder / name for name in folders if not (folder / name).is_symlink()]
            return


def _walk(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` without hidden names, in order; it fails where a folder cannot be read."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, folders, files in os.walk(top, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(folder), folders, sorted(name for name in files if not name.startswith("."))


def _check_apart(items: Sequence[Item]) -> None:
    places: dict[Path, Item] = {}
    for item in items:
        other = places.setdefault(item.folder, item)
        if other != item:
            raise InputError(
                f"the results of {other.shown} and {item.shown} would overwrite each other in {item.folder}; "
                "give them different names, or work on them one after the other with different --out"
            )


def _check_writable(out: Path) -> None:
    places = (out, *out.absolute().parents)
    there = next(place for place in places if place.exists() or place.is_symlink())
    if not there.exists():
        raise InputError(f"the results cannot go to {out}: {there} is a link to nothing")
    if not there.is_dir():
        raise InputError(f"the results cannot go to {out}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"the results cannot go to {out}: {there} cannot be written")
    try:  # some file systems refuse what the rights allow
        Path(tempfile.mkdtemp(prefix=".mtcp-", dir=there)).rmdir()
    except OSError as error:
        if error.errno != ENOSPC:  # the work says how much room it takes
            raise InputError(f"the results cannot go to {out}: {there}: {error.strerror}") from error
