"""Atomic writes."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.filesize import decimal

from mtcp_serve.utils.atomic import (
    NoRoomError,
    atomic_file,
    merge_folder,
    remove_leftovers,
    staged,
    write_atomic,
)
from tests.needs import needs_posix


def test_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"one", b"two"):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path, others = tmp_path / "last[1].pt", ["last[1].pt", ".last[1].pt-old.tmp", ".last1.pt-abcdefgh.tmp"]
    for name in others:
        (tmp_path / name).write_text("kept")
    with atomic_file(path) as file:  # as it is when the process is killed here
        (left,) = (entry for entry in tmp_path.iterdir() if entry.name not in others)
        file.write(b"half")
        (tmp_path / "copy").write_bytes(b"half")
    (tmp_path / "copy").rename(left)
    remove_leftovers(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path / "absent" / "last.pt")


@needs_posix
def test_a_device_and_a_pipe_are_written_to_and_stay(tmp_path: Path) -> None:
    device = tmp_path / "null"
    device.symlink_to(os.devnull)
    write_atomic(device, b"x")
    assert device.is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomic(pipe, b"report")
        assert os.read(reader, 100) == b"report"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "file", b"x")


def test_what_is_free_is_what_the_next_try_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(_: object) -> SimpleNamespace:
        used = sum(path.stat().st_size for path in tmp_path.rglob("*"))
        return SimpleNamespace(free=10**6 - used)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr(os, "fsync", full)
    free = usage(tmp_path).free
    with (
        pytest.raises(NoRoomError, match=r"it takes 1\.0 MB or more") as caught,
        staged(tmp_path / "a") as staging,
    ):
        staging.write("maps.npz", bytes(10**6))
    assert f"{decimal(free)} are free" in str(caught.value)
    assert not list(tmp_path.iterdir())


def folders(tmp_path: Path) -> tuple[Path, Path]:
    """What is new, and the folder that is there."""
    new, folder = tmp_path / "new", tmp_path / "folder"
    for place, files in ((new, ("both", "later")), (folder, ("both", "kept"))):
        place.mkdir()
        for name in files:
            (place / name).write_text(place.name)
    return new, folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_is_added_to(tmp_path: Path) -> None:
    new, folder = folders(tmp_path)
    merge_folder(new, folder, tmp_path / "replaced")
    assert contents(folder) == {"both": "new", "later": "new", "kept": "folder"}
    assert contents(tmp_path / "replaced") == {"both": "folder"}


def test_an_interrupt_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, folder = folders(tmp_path)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path == new / "later":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge_folder(new, folder, tmp_path / "replaced")
    assert contents(folder) == {"both": "folder", "kept": "folder"}
    assert contents(new) == {"both": "new", "later": "new"}
