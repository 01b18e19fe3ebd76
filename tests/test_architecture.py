"""Imports point one way: clients, export, training -> mtcp_serve; export -> training; up nowhere."""

import ast
import graphlib
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("_version", "errors"),
    ("utils",),
    ("kinds",),
    ("bundle",),
    ("engines",),
    ("inference",),
    ("outputs",),
    ("prediction",),
    ("model",),
    ("clients", "offline", "server"),
    ("cli",),
    ("__main__",),
)
"""The rooms of mtcp_serve, from the ground up: a room may import those of lower layers, and itself.

``__init__`` is the front door: it names what programs import, and no room goes through it.
"""
LOWER = ("errors", "utils", "kinds", "bundle", "engines", "inference")
MAY_IMPORT = {
    "mtcp_serve": {"mtcp_serve"},
    "training": {
        "training",
        "mtcp_serve.bundle",
        "mtcp_serve.kinds",
        "mtcp_serve.errors",
        "mtcp_serve.utils",
        "mtcp_serve.inference.images",  # one reader: training sees what serving sees
    },
    "export": {"export", "training", *(f"mtcp_serve.{room}" for room in LOWER)},
    "clients": {"clients", "mtcp_serve.clients"},
}
EXCEPTIONS = {"training/pseudo/": {"mtcp_serve"}, "clients/examples/": {"mtcp_serve"}}
"""Labelling images with a bundle runs the gateway's engine; examples show what programs import."""
OURS = ("mtcp_serve", "training", "export", "clients", "tests", "benchmarks")
EXTRAS = {
    "mtcp_serve": ["cpu", "heif", "video", "openexr", "openvino", "triton", "otel", "rtx", "usd", "clients"],
    "training": ["train"],
    "export": ["export", "cpu"],
    "clients": ["clients"],
}
BROUGHT = {
    "OpenEXR": "openexr",
    "grpc": "tritonclient",
    "onnxruntime_ep_nv_tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "pxr": "usd-core",
    "pydantic_core": "pydantic",
}
"""A module that an extra of a declared package brings, or a package that not every machine has."""
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


def modules() -> dict[str, set[str]]:
    """Every module of mtcp_serve, and those of them that it imports, wherever in the file that is."""
    paths = {name_of(path): path for path in sorted((ROOT / "mtcp_serve").rglob("*.py"))}
    return {name: {found for found in targets(path) if found in paths} for name, path in paths.items()}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def targets(path: Path) -> set[str]:
    """Modules and packages that a file imports, where ``from package import module`` is the module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {name for name in inner if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()}
            names |= files
            if files != inner:
                names.add(node.module)
    return names


def room(module: str) -> str:
    """The part of mtcp_serve that a module is in; its own name at the top level."""
    return module.split(".")[1]


def test_every_room_has_its_layer() -> None:
    rooms = {room(module) for module in modules() if module != "mtcp_serve"}
    assert sorted(rooms) == sorted({name for layer in LAYERS for name in layer} & rooms)


def test_no_import_points_up() -> None:
    height = {name: index for index, layer in enumerate(LAYERS) for name in layer}
    for module, imports in modules().items():
        for target in imports if module != "mtcp_serve" else ():
            assert target != "mtcp_serve", f"{module} imports the front door; import the module that is meant"
            below = height[room(target)] < height[room(module)]
            assert below or room(target) == room(module), f"{module} imports {target}, which is not below it"


def test_no_import_goes_in_a_circle() -> None:
    list(graphlib.TopologicalSorter(modules()).static_order())


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
