"""The notebook runs from top to bottom, and its cells give what the text around them says."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mtcp_serve import Prediction

NOTEBOOK = Path(__file__).parent.parent.parent / "examples" / "quickstart.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in document["cells"] if cell["cell_type"] == kind]


def run(source: str, names: dict[str, Any]) -> Any:
    """The value of a cell's last expression, as a notebook would show it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), names)


def test_every_cell_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells("code")]
    assert repr(shown[0]).startswith("<Model mtcp-lite 2 on ")
    assert isinstance(shown[1], Prediction)
    assert shown[1]._repr_html_().count("<figure") == 6
    assert shown[2][0] == (512, 512)
    assert shown[3]["unit"] == "m"
    assert "person" in shown[4]
    assert isinstance(shown[5], Image.Image)
    assert shown[5].size == (512, 512)
    assert shown[6] == (288, 384)
    assert shown[7] == [(512, 256), (512, 256)]
    assert {"depth.png", "depth.visualization.png", "maps.npz", "metadata.json"} <= set(shown[8])


def test_it_holds_no_outputs() -> None:
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
