"""Folders for what is being made."""

import os
from pathlib import Path

import pytest

from mtcp_serve.utils.atomic import workshop


def test_nothing_stays_of_an_interrupt_while_it_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The signal comes when the system has made the folder and Python has not heard of it yet."""
    mkdir = os.mkdir

    def interrupted(path: Path, mode: int = 0o777) -> None:
        mkdir(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), workshop(tmp_path, "bundle"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_is_hidden_and_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with workshop(tmp_path, "bundle") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".bundle-")
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_made_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), workshop(tmp_path / "nowhere", "bundle"):
        pass
