"""Imports point one way: clients, export, training -> mtcp_serve.bundle; export -> training."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "mtcp_serve": {"mtcp_serve"},
    "training": {"training", "mtcp_serve.bundle"},
    "export": {"export", "training", "mtcp_serve.bundle", "mtcp_serve.errors", "mtcp_serve.utils"},
    "clients": {"clients", "mtcp_serve.bundle"},
}
EXCEPTIONS = {"training/pseudo/": {"mtcp_serve"}}
"""Labelling photos with a bundle runs the gateway's engine."""
OURS = ("mtcp_serve", "training", "export", "clients", "tests", "benchmarks")
EXTRAS = {
    "mtcp_serve": ["cpu", "video", "triton", "otel"],
    "training": ["train"],
    "export": ["export", "cpu"],
    "clients": ["clients"],
}
BROUGHT = {"grpc": "tritonclient"}
"""A module that an extra of a declared package brings."""
OF_TRITON = "triton_python_backend_utils"


def imports(path: Path) -> set[str]:
    """What of the project a file imports."""
    return {name for name in imported(path) if name.split(".")[0] in OURS}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
    return names


def declared(extras: list[str]) -> set[str]:
    """The distributions of the base and of ``extras`` in pyproject.toml, by their plain names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(f"{project['name']}[{extra}]" for extra in extras)]
    found = set()
    while lines:
        name, *inner = re.findall(r"[\w.-]+", re.split("[<>=;]", lines.pop())[0])
        if name == project["name"]:
            lines += [line for extra in inner for line in project["optional-dependencies"][extra]]
        found.add(plain(name))
    return found


def plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


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


@pytest.mark.parametrize("package", EXTRAS)
def test_what_a_package_imports_is_declared(package: str) -> None:
    """In the base or in the extras that messages and documents name, not by way of another package."""
    distributions = packages_distributions()
    goods = declared(EXTRAS[package])
    for path in sorted((ROOT / package).rglob("*.py")):
        names = {name.split(".")[0] for name in imported(path)}
        for name in names - sys.stdlib_module_names - {*OURS, OF_TRITON}:
            owners = {plain(owner) for owner in distributions.get(name, [])}
            assert owners & goods or BROUGHT.get(name) in goods, f"{path.relative_to(ROOT)} imports {name}"


def test_no_test_lets_playwright_evaluate_text_in_the_page() -> None:
    """``wait_for_function`` does when it has to look again, and the page's own policy forbids it."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        called = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert "wait_for_function" not in called, f"{path.relative_to(ROOT)}: wait by expect or browser.until"
