"""Every command of the README, run as a newcomer would in a fresh copy of the tree."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import free_port

ROOT = Path(__file__).parent.parent
URL = f"http://127.0.0.1:{Settings.model_fields['port'].default}"
"""The server of the README. Somebody's own may be there: the commands are run against another port."""


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
def served(clone: Path) -> Iterator[str]:
    """The address of ``make serve``, which installs the server and starts it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 1800
    with subprocess.Popen(
        ["make", "serve"], cwd=clone, env={**os.environ, "MTCP_PORT": str(port)}
    ) as process:
        try:
            while not ready(url):
                assert process.poll() is None, "make serve ended"
                assert time.monotonic() < end, "make serve did not become ready"
                time.sleep(0.5)
            yield url
        finally:
            process.terminate()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.HTTPError:
        return False


def test_the_first_command_serves_and_the_second_is_what_ci_runs() -> None:
    assert commands()[0] == "make serve"
    assert "make test" in commands()
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_every_other_command_runs_and_writes_what_it_says(clone: Path, served: str) -> None:
    assert any(URL in command for command in commands())
    for command in commands():
        if command.startswith("make "):
            continue
        done = subprocess.run(
            ["bash", "-euc", command.replace(URL, served)], cwd=clone, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    maps = json.loads((clone / "maps.json").read_text())["maps"]
    assert sorted(maps) == ["depth", "normals", "parsing", "saliency", "semseg"]
    assert {path.name for path in (clone / "out" / "astronaut").iterdir()} >= {"overview.png", "maps.npz"}
    shape = "print(maps['depth'].dtype, maps['depth'].ndim, maps.about('depth')['unit'], sorted(maps))"
    for program, environment in zip(blocks("python"), (".venv-serve", ".venv"), strict=True):
        python = str(clone / environment / "bin" / "python")
        code = program.replace(URL, served) + shape
        done = subprocess.run([python, "-c", code], cwd=clone, capture_output=True, text=True)
        assert done.stdout == "float32 2 m ['depth', 'normals']\n", done.stderr
    assert (clone / "depth-over-image.png").is_file()
    packages = list((clone / ".venv-serve").glob("lib/python*/site-packages"))
    assert packages
    assert not (packages[0] / "torch").exists()
