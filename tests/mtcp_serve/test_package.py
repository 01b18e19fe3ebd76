"""The package as others meet it: its names, what importing it costs, and what it may import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mtcp_serve

FOLDER = Path(mtcp_serve.__file__).parent


def test_all_is_sorted_and_complete() -> None:
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mtcp_serve")
        for alias in node.names
    }
    assert mtcp_serve.__all__ == sorted(mtcp_serve.__all__)
    assert set(mtcp_serve.__all__) == imported
    assert all(hasattr(mtcp_serve, name) for name in mtcp_serve.__all__)


def test_importing_the_server_imports_no_torch_and_opens_no_socket() -> None:
    code = """
import json, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(event)
sys.addaudithook(refuse)
import mtcp_serve.server.app, mtcp_serve.offline.runner, mtcp_serve.cli
print(json.dumps(sorted(name for name in sys.modules if name.count(".") < 2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "fastapi" in loaded
    assert not loaded & {
        "grpc",
        "onnxruntime",
        "opentelemetry.sdk",
        "torch",
        "torchvision",
        "timm",
        "transformers",
        "tritonclient",
        "onnx",
        "training",
        "export",
        "clients",
    }


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_imports_point_one_way_and_files_stay_small(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert name.partition(".")[0] not in {"training", "export", "clients", "torch", "tests"}
    assert len(text.splitlines()) <= 400


def test_package_is_typed() -> None:
    assert (FOLDER / "py.typed").is_file()
