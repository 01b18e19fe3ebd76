"""Writing files so that a reader, or a crash, never meets half of one: the one place for it.

`write_atomic` and `atomic_file` for a file, `replaced_folder` for a folder that is made anew, `merge_folder`
for one that is added to while others watch it, `staged` for a result that may be taken up again.
"""

import errno
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

from rich.filesize import decimal

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a disk, or a user's share of one, that is full."""


class NoRoomError(OSError):
    """The disk, or the user's share of it, is full."""

    @classmethod
    def at(cls, path: Path, needed: int) -> Self:
        """For ``path``, which would have taken ``needed`` bytes or more."""
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free
        return cls(
            errno.ENOSPC,
            f"no room for {path}: it takes {decimal(needed)} or more, {decimal(free)} are free; "
            "make room, then give the same command again",
        )

    def __str__(self) -> str:
        return str(self.args[1])


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: whoever opens it sees the old content or all of the new one.

    Raises:
        OSError: the folder does not exist, cannot be written, or is full; ``path`` is then as it was.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of ``path`` if the block ends well.

    What cannot be replaced, a pipe or a device such as ``/dev/stdout``, is written to as it is.

    Raises:
        OSError: as `write_atomic`; ``path`` is then as it was.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as there:
            yield there
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed left of writing ``path``; nobody may be writing it now.

    Raises:
        OSError: one cannot be removed.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}-????????.tmp"):
        left.unlink(missing_ok=True)


def partial_folder(folder: Path) -> Path:
    """Where the files of ``folder`` are gathered until all are there."""
    return folder.with_name(f".{folder.name}.partial")


class Staging:
    """A folder in which the files of a result are gathered; ``bytes`` have been written, or tried to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bytes = 0

    def write(self, name: str, data: bytes) -> None:
        """Write a file, down to the disk.

        Raises:
            OSError: it cannot be written.
        """
        self.bytes += len(data)
        with (self.folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def room(folder: Path, staging: Staging) -> Iterator[None]:
    """Make a full disk inside the block a `NoRoomError` that says how much room ``folder`` needs."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NoRoomError.at(folder, staging.bytes) from error
        raise


@contextmanager
def staged(folder: Path) -> Iterator[Staging]:
    """Gather the files of ``folder`` beside it, for `mtcp_serve.offline.results.publish` to move there.

    However the block ends, nothing is left of the gathering; what a killed process left is cleared first.

    Raises:
        NoRoomError: the disk is full.
        OSError: the folder cannot be written.
    """
    staging = Staging(partial_folder(folder))
    with room(folder, staging):  # around the clearing: what is free is measured after it
        try:
            shutil.rmtree(staging.folder, ignore_errors=True)
            staging.folder.mkdir(parents=True)
            yield staging
        finally:
            shutil.rmtree(staging.folder, ignore_errors=True)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Give the path of a folder to make beside ``folder``, whose place it takes if the block ends well.

    Otherwise ``folder`` is as it was, and nothing is left of the other.

    Raises:
        OSError: something cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with workshop(folder.parent, folder.name) as place:
        new, old = place / "new", place / "old"
        yield new
        try:
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        except BaseException:  # an interrupt too: what was there would go with the workshop
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise


def merge_folder(new: Path, folder: Path, place: Path) -> None:
    """Move what is in the folder ``new`` to ``folder``, in the order of names; the rest there stays.

    What it takes the place of goes to ``place``, a folder to make on the same volume. For a folder that is
    watched, or holds too much to copy: unlike with `replaced_folder` it is never away, and never all new.

    Raises:
        OSError: something cannot be moved; ``folder`` is then as it was.
    """
    if not folder.exists():
        new.rename(folder)
        return
    place.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for path in sorted(new.iterdir()):
            old = folder / path.name
            if old.exists():
                moved.append((place / path.name, old))
                old.rename(place / path.name)
            moved.append((old, path))
            path.rename(old)
    except BaseException:  # an interrupt too
        for here, there in reversed(moved):
            if here.exists():
                here.rename(there)
        raise


@contextmanager
def workshop(parent: Path, name: str) -> Iterator[Path]:
    """Give a new hidden folder in ``parent``; it is removed at the end, however that comes.

    `tempfile.TemporaryDirectory` leaves its folder behind when an interrupt comes while it is being made.

    Raises:
        OSError: nothing can be made in ``parent``.
    """
    folder = parent / f".{name}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
