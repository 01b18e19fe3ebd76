"""The walk through the code names what is there, in at most ten stops."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()
STOPS = re.findall(r"`(mtcp_serve/[\w/]+\.py)`,\s+`([\w.]+)`", TEXT)


def names(path: Path) -> set[str]:
    """Functions and classes of a module, and the methods of its classes."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{each.name}" for each in inner}
    return found


@pytest.mark.parametrize(("file", "name"), STOPS)
def test_what_it_names_is_there(file: str, name: str) -> None:
    assert name in names(ROOT / file)


def test_it_has_at_most_ten_stops_and_every_file_says_what_to_look_at() -> None:
    assert len(re.findall(r"^\d+\. ", TEXT, re.MULTILINE)) == 10
    assert len(STOPS) == len(re.findall(r"`mtcp_serve/[\w/]+\.py`", TEXT)) > 20


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
