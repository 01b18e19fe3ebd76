"""Fixtures of the page's tests: a server, a page that shows an answer, and that answer without the page."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.mtcp_serve.browser import PHOTO, give, visit
from tests.mtcp_serve.process import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(server: Server, browser: Browser) -> Iterator[Page]:
    """A page that shows the answer to the image; tests leave the view as they like."""
    with visit(browser, server.url) as page:
        give(page)
        yield page


@pytest.fixture(scope="module")
def answer(server: Server) -> Any:
    """The same image's arrays and pictures, asked for without the page."""
    body = server.predict(PHOTO.read_bytes(), "format=npz&visualize=true&refine=true").content
    return dict(np.load(io.BytesIO(body)))


@pytest.fixture(scope="module")
def metadata(answer: Any) -> Any:
    return json.loads(answer["metadata"].item())
