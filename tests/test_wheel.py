"""What a user's site-packages get: this package under its own name, whole, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of the files that go into it, without a download."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("mtcp_serve", "training", "export", "clients"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_brings_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mtcp_serve"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("bundles", "server/web")
        for path in (ROOT / "mtcp_serve" / folder).rglob("*")
        if path.is_file()
    }
    assert wanted | {"mtcp_serve/py.typed", "mtcp_serve/kinds/colormaps.json"} <= set(names)


def test_installed_alone_it_predicts(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, from a folder that is not a clone; what it depends on is borrowed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    packages = next((tmp_path / "bare").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    code = f"""
import sys
sys.path += {borrowed}
import mtcp_serve, numpy
assert mtcp_serve.__file__.startswith({str(packages)!r}), mtcp_serve.__file__
with mtcp_serve.load(threads=1) as model:
    print(*model.predict(numpy.zeros((64, 64, 3), numpy.uint8), ["depth"]))
from mtcp_serve.clients import GatewayClient
"""
    python = tmp_path / "bare" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "depth"), done.stderr
