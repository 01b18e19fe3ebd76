"""Every command of the README, run as a newcomer would in a fresh copy of the tree."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent
URL = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = (block.replace("\\\n", " ").splitlines() for block in blocks("sh"))
    return [line for block in lines for line in block if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files git has or would take, and the environment that ``make test`` has made."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def served(clone: Path) -> Iterator[None]:
    """``make serve``, which installs the server and starts it."""
    socket.create_server(("127.0.0.1", 8000)).close()  # somebody else's server would be taken for ours
    end = time.monotonic() + 1800
    with subprocess.Popen(["make", "serve"], cwd=clone) as process:
        try:
            while not ready():
                assert process.poll() is None, "make serve ended"
                assert time.monotonic() < end, "make serve did not become ready"
                time.sleep(0.5)
            yield
        finally:
            process.terminate()


def ready() -> bool:
    try:
        return httpx.get(f"{URL}/health/ready").is_success
    except httpx.HTTPError:
        return False


def test_the_first_command_serves_and_the_second_is_what_ci_runs() -> None:
    assert commands()[0] == "make serve"
    assert "make test" in commands()
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.usefixtures("served")
def test_every_other_command_runs_and_writes_what_it_says(clone: Path) -> None:
    for command in commands():
        if command.startswith("make "):
            continue
        done = subprocess.run(["bash", "-euc", command], cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    maps = json.loads((clone / "maps.json").read_text())["maps"]
    assert sorted(maps) == ["depth", "normals", "parsing", "saliency", "semseg"]
    assert {path.name for path in (clone / "out" / "astronaut").iterdir()} >= {"overview.png", "maps.npz"}
    (program,) = blocks("python")
    shape = "print(maps['depth'].dtype, maps['depth'].ndim, maps.about('depth')['unit'], sorted(maps))"
    python = str(clone / ".venv" / "bin" / "python")
    done = subprocess.run([python, "-c", program + shape], cwd=clone, capture_output=True, text=True)
    assert done.stdout == "float32 2 m ['depth', 'normals']\n", done.stderr
    packages = list((clone / ".venv-serve").glob("lib/python*/site-packages"))
    assert packages
    assert not (packages[0] / "torch").exists()
