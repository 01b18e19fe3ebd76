"""Fixtures: the tiny bundle of `tests.mtcp_serve.support`, and a server for it in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.browser import chromium
from tests.mtcp_serve.support import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def settings(bundle: Path) -> Settings:
    return Settings(
        bundle=(bundle,), intra_op_threads=1, max_bytes=1_000_000, max_pixels=4_000_000, max_side=4000
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: while it is open, its thread can run no event loop of a test."""
    with chromium() as browser:
        yield browser
