"""What distances are worth to a model whose errors are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

import mtcp_serve
from benchmarks import known_distances
from mtcp_serve.bundle.manifest import DepthTask

TRUTH = np.linspace(2000, 4000, 48 * 64).reshape(48, 64).astype(np.uint16)


class Off:
    """A model that sees everything at ``share`` of its distance, and ``more`` metres."""

    manifest = SimpleNamespace(tasks=(DepthTask(name="depth", range=(0.1, 10)),))

    def __init__(self, share: float, more: float) -> None:
        self._depth = (share * TRUTH / 1000 + more).astype(np.float32)

    def __enter__(self) -> "Off":
        return self

    def __exit__(self, *error: object) -> None: ...

    def predict(self, image: Path, tasks: list[str], size: str) -> dict[str, Any]:
        assert (image.name, tasks, size) == ("a.jpg", ["depth"], "model")
        return {"depth": self._depth}


def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Off, *options: str) -> dict[Any, Any]:
    """RMSE by number of distances and way, of one labelled image and one without labels."""
    for place in ("images", "splits", "depth"):
        (tmp_path / place).mkdir()
    (tmp_path / "splits" / "val.txt").write_text("a\nb\n")
    for name in "ab":
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / f"{name}.jpg")
    Image.fromarray(TRUTH).save(tmp_path / "depth" / "a.png")
    monkeypatch.setattr(mtcp_serve, "load", lambda bundle: model)
    app = Typer()
    app.command()(known_distances.main)
    done = CliRunner().invoke(app, [str(tmp_path), *options])
    assert done.exit_code == 0, done.output
    rows = [line.strip("| ").split(" | ") for line in done.output.splitlines() if line.startswith("| ")][2:]
    return {(int(count), way): float(rmse) for count, way, rmse, *_ in rows}


def test_a_factor_is_found_by_every_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = table(monkeypatch, tmp_path, Off(0.5, 0), "--counts", "0,20", "--error", "0")
    off = np.sqrt(((TRUTH / 2000) ** 2).mean())
    for way in known_distances.WAYS:
        assert found[0, way] == pytest.approx(off, abs=2e-3)
    assert found[20, "one factor"] < 1e-3
    assert found[20, "scale and shift"] < 1e-3
    assert found[20, "kriging"] < 0.06


def test_a_shift_is_no_factor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = table(monkeypatch, tmp_path, Off(1, 1), "--counts", "1,40", "--error", "0")
    assert found[1, "scale and shift"] == found[1, "one factor"]
    assert found[40, "scale and shift"] < 1e-3
    assert found[40, "kriging"] < 0.05 < found[40, "one factor"]


def test_distances_are_as_wrong_as_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = table(
        monkeypatch, tmp_path, Off(1, 0), "--counts", "1,60", "--error", "0", "--wrong", "1", "--draws", "8"
    )
    assert found[1, "one factor"] > 1  # half or twice of some 3 m
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    few = table(monkeypatch, quiet, Off(1, 0), "--counts", "60", "--error", "0", "--wrong", ".1")
    assert 0 < few[60, "kriging"] < 0.2
