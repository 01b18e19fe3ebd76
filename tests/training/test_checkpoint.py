import resource
from pathlib import Path

import pytest
import torch

from training import checkpoint
from training.checkpoint import CheckpointError


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    checkpoint.save(path, {"value": 1})

    class Unpicklable:
        def __reduce__(self) -> str:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"value": Unpicklable()})
    assert checkpoint.load(path)["value"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt.pt"]


def test_a_full_disk_is_said_and_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    checkpoint.save(path, {"value": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*ckpt\.pt"):
            checkpoint.save(path, {"value": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoint.load(path)["value"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt.pt"]


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "text.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match="not a readable checkpoint: it ends too early"):
        checkpoint.load(tmp_path / "empty.pt")
    torch.save({"format": 99}, tmp_path / "old.pt")
    with pytest.raises(CheckpointError, match="format 99; this version reads 1"):
        checkpoint.load(tmp_path / "old.pt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("executed",))

    torch.save({"format": 1, "config": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load(tmp_path / "evil.pt")
