"""Imports point one way: clients, export, training -> mtcp_serve.manifest; export -> training."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mtcp_serve": {"mtcp_serve"},
    "training": {"training", "mtcp_serve.manifest"},
    "export": {"export", "training", "mtcp_serve.manifest", "mtcp_serve.errors"},
    "clients": {"clients", "mtcp_serve.manifest"},
}
EXCEPTIONS = {"training/pseudo/": {"mtcp_serve"}}
"""Labelling photos with a bundle runs the gateway's engine."""
OURS = ("mtcp_serve", "training", "export", "clients", "tests", "benchmarks")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] in OURS}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        place = path.relative_to(ROOT).as_posix()
        extra = [goods for start, goods in EXCEPTIONS.items() if place.startswith(start)]
        goods = MAY_IMPORT[package].union(*extra)
        for name in imports(path):
            allowed = any(name == good or name.startswith(f"{good}.") for good in goods)
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"
