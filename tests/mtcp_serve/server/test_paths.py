"""The application below a prefix: mounted in another one, or behind a proxy that takes the prefix off."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from mtcp_serve.server.app import create_app
from mtcp_serve.server.paths import path_of
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.process import CLEAN, Server, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD

KEY = {"X-API-Key": "the-key-of-the-tests"}
PREFIX = "/maps/of/photos"


@pytest.fixture(scope="module", params=["mounted", "proxied"])
def below(
    bundle: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Any, str]]:
    """A client, and what stands before the paths that it asks the server for."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"tests: {KEY['X-API-Key']}")
    keys.chmod(0o600)
    if request.param == "mounted":
        app = create_app(Settings(bundle=(bundle,), intra_op_threads=1, api_keys_file=keys))
        lifespan: Any = app.router.lifespan_context
        parent = Starlette(routes=[Mount(PREFIX, app)], lifespan=lambda _: lifespan(app))
        with TestClient(parent, follow_redirects=False) as client:
            yield client, PREFIX
    else:
        server = Server(bundle, api_keys_file=keys, root_path=PREFIX)
        yield server.client, ""
        assert server.stop() in CLEAN


def test_the_page_and_the_reference_need_no_key_and_may_run(below: tuple[Any, str]) -> None:
    client, prefix = below
    page, script = client.get(f"{prefix}/"), client.get(f"{prefix}/web/page.js")
    assert (page.status_code, script.status_code) == (200, 200)
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "script-src" not in script.headers["content-security-policy"]
    assert script.headers["cache-control"] == "no-cache"
    docs = client.get(f"{prefix}/docs")
    assert "'unsafe-inline'" in docs.headers["content-security-policy"]
    links = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)["']""", docs.text)
    assert len(links) >= 4
    for link in links:
        assert link.startswith(f"{PREFIX}/")
        found = client.get(prefix + link.removeprefix(PREFIX))
        assert found.status_code == 200
        assert (found.headers.get("cache-control") == "no-store") == link.endswith("openapi.json")
    assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": PREFIX}]


def test_the_rest_needs_one(below: tuple[Any, str]) -> None:
    client, prefix = below
    assert client.get(f"{prefix}/health/ready").status_code == 200
    for path in ("/models", "/metrics", f"{PREFIX}/docs", "/nothing", "/docs/x"):
        check_error(client.get(prefix + path), 401, "unauthorized")
    assert isinstance(client.get(f"{prefix}/v2").json()["error"], str)
    photo = client.post(f"{prefix}/predict?tasks=depth", content=GOOD, headers=PNG | KEY)
    assert photo.status_code == 200
    assert "script-src" not in photo.headers["content-security-policy"]
    assert client.get(f"{prefix}/v2/nothing", headers=KEY).json()["error"].startswith("there is nothing")
    counted = 'mtcp_requests_total{method="POST",path="/predict",status="200"} 1.0'
    until(lambda: counted in client.get(f"{prefix}/metrics", headers=KEY).text)


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        ("/a", "", "/a"),
        ("/a/b", "/a", "/b"),
        ("/a/", "/a", "/"),
        ("/a", "/a", ""),
        ("/ab", "/a", "/ab"),
        ("/b/a", "/a", "/b/a"),
        ("/a/a/b", "/a", "/a/b"),
    ],
)
def test_the_path_without_the_root(path: str, root: str, found: str) -> None:
    assert path_of({"path": path, "root_path": root}) == found


@pytest.mark.parametrize("root", ["maps", "/maps/", "/", "/a?b", "/a b"])
def test_what_is_no_root_path(root: str) -> None:
    with pytest.raises(ValidationError, match="root_path"):
        Settings(root_path=root)
