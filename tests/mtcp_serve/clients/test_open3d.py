"""The view in Open3D, where that is not installed."""

import sys
from pathlib import Path

import pytest
import typer

from clients.examples.open3d_view import main


def test_without_open3d_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(typer.Exit) as ended:
        main(Path("image.jpg"))
    assert ended.value.exit_code == 3
    said = capsys.readouterr()
    assert said.err.startswith("error: this needs Open3D: pip install open3d (")
    assert said.out + said.err.partition("\n")[2] == ""
