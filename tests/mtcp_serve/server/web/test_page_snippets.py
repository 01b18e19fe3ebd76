"""The demo page's "The same from a program": what it says is run, by curl in a shell and by Python."""

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from mtcp_serve.bundle.manifest import Manifest
from tests.mtcp_serve.browser import answered, give, needs_chromium, visit
from tests.mtcp_serve.process import PATIENCE_S, Server
from tests.mtcp_serve.support import encode, make_bundle, noise
from tests.needs import needs_curl

pytestmark = needs_chromium
PHOTO = encode(noise(48, 64))
KEY = "a-key-for-the-tests-0123456789"


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    server = Server(bundle)
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(name: str) -> dict[str, Any]:
    """An image to choose, which lies in the working directory too."""
    Path(name).write_bytes(PHOTO)
    return {"name": name, "mimeType": "image/png", "buffer": PHOTO}


def snippet(page: Page, language: str) -> str:
    return page.locator(f"#snippet-{language}").text_content() or ""


def run_curl(page: Page, **environment: str) -> dict[str, tuple[int, ...]]:
    """The shapes of the maps that the command fetches."""
    Path("maps.npz").unlink(missing_ok=True)
    command = ["sh", "-c", snippet(page, "curl").replace("curl ", "curl --silent --show-error ", 1)]
    subprocess.run(command, check=True, timeout=PATIENCE_S, env={**os.environ, **environment})
    with np.load("maps.npz") as maps:
        return {name: maps[name].shape for name in maps if maps[name].ndim}


def run_python(page: Page) -> dict[str, tuple[int, ...]]:
    """The shapes of the maps that the program prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(snippet(page, "python"), {})
    lines = (line.partition(" ") for line in said.getvalue().splitlines())
    return {name: tuple(int(part) for part in shape.strip("()").split(",")) for name, _, shape in lines}


@needs_curl
def test_names_of_files_survive_the_shell_and_curl(server: Server, browser: Browser, folder: Path) -> None:
    with visit(browser, server.url) as page:
        for name in ("Berlin, 2024.png", "a;b.png", 'say "hi".png', "it's $5.png", r"back\slash\".png", "\\"):
            give(page, image(name))
            expect(page.get_by_role("status")).to_contain_text(name)
            shapes = run_curl(page)
            assert shapes == run_python(page)
            assert shapes["depth"][:2] == (48, 64)


@needs_curl
def test_size_and_model_are_those_that_were_chosen(browser: Browser, folder: Path) -> None:
    plain = make_bundle(folder / "plain")
    Manifest.load(plain).model_copy(update={"name": "plain"}).save(plain)
    server = Server(make_bundle(folder / "tiny"), plain)
    try:
        with visit(browser, server.url) as page:
            give(page, image("a.png"))
            assert "refine=true" in snippet(page, "curl")
            assert not any(word in snippet(page, "curl") for word in ("size", "model"))
            with page.expect_response("**/predict?**model=plain**"):
                page.select_option("#model", "plain")
            answered(page)
            with page.expect_response("**/predict?**size=model**"):
                page.select_option("#size", "model")
            answered(page)
            assert "size=model&model=plain" in snippet(page, "curl")
            assert "refine" not in snippet(page, "curl")
            assert 'size="model", model="plain")' in snippet(page, "python")
            assert run_curl(page)["depth"] == run_python(page)["depth"] == (24, 32)
    finally:
        server.stop()


@needs_curl
def test_a_key_comes_from_the_environment(
    bundle: Path, browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("keys").write_text(f"page: {KEY}\n")
    server = Server(bundle, api_keys_file=folder / "keys")
    try:
        with visit(browser, server.url, allow=("401 ",), ready="#key[open]") as page:
            page.get_by_label("API key", exact=True).fill(KEY)
            page.get_by_role("button", name="Continue").click()
            expect(page.locator("#tasks li")).to_have_count(5)
            give(page, image("a.png"))
            assert KEY not in snippet(page, "curl") + snippet(page, "python")
            monkeypatch.setenv("MTCP_API_KEY", KEY)
            assert run_curl(page) == run_python(page)
            with pytest.raises(subprocess.CalledProcessError):
                run_curl(page, MTCP_API_KEY="another")
            assert not Path("maps.npz").exists()  # what is wrong is no file of maps
    finally:
        server.stop()
