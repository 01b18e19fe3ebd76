"""The image itself, run as compose.yaml runs it: ``make image`` builds it and then calls these tests.

They are skipped unless ``MTCP_TEST_IMAGE`` names an image.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.clients.http import GatewayClient
from tests.deploy.manifests import COMPOSE, ROOT, read
from tests.deploy.test_image import LARGE
from tests.mtcp_serve.process import CLEAN, Server, until
from tests.mtcp_serve.server.test_bad_input import PNG, check_error
from tests.mtcp_serve.support import GOOD, SLOW, make_bundle

IMAGE = os.environ.get("MTCP_TEST_IMAGE", "")
KEY = secrets.token_urlsafe(32)
PHOTO = ROOT / "docs" / "astronaut.jpg"
pytestmark = pytest.mark.skipif(not IMAGE, reason="MTCP_TEST_IMAGE names no image; make image builds one")


def docker(*arguments: object) -> str:
    """What ``docker`` prints."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Container:
    """The service ``gateway`` of compose.yaml."""

    compose: Callable[..., str]
    id: str
    url: str

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.id))
        assert isinstance(found, dict)
        return found

    def client(self, key: str = KEY) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"X-API-Key": key}, timeout=60)


@contextmanager
def up(folder: Path, **changes: object) -> Iterator[Container]:
    """Start the service, on a port of its own and with a key; wait until Docker calls it healthy."""
    file, keys = folder / "compose.yaml", folder / "api_keys.txt"
    document = read(COMPOSE)
    gateway = document["services"]["gateway"]
    gateway.pop("build")
    gateway |= {"image": IMAGE, "ports": ["127.0.0.1::8000"], "healthcheck": {"interval": "1s"}, **changes}
    document["secrets"]["api_keys"]["file"] = str(keys)
    file.write_text(yaml.safe_dump(document))
    keys.write_text(f"test: {KEY}\n")
    os.chown(keys, 10001, -1)
    keys.chmod(0o400)
    project = f"mtcp-test-{secrets.token_hex(4)}"

    def compose(*arguments: object) -> str:
        return docker("compose", "-p", project, "-f", file, "--profile", "cpu", *arguments)

    try:
        compose("up", "--detach", "--wait")
        port = compose("port", "gateway", 8000).rsplit(":", 1)[1].strip()
        yield Container(compose, compose("ps", "--quiet", "gateway").strip(), f"http://127.0.0.1:{port}")
    finally:
        compose("down", "--timeout", 5)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with up(tmp_path_factory.mktemp("compose")) as running:
        yield running


def test_it_has_no_rights(container: Container) -> None:
    found = container.inspect()
    assert found["State"]["Health"]["Status"] == "healthy"
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert "Tmpfs" not in found["HostConfig"]
    status = docker("exec", container.id, "python", "-c", "print(open('/proc/1/status').read())")
    fields = dict(line.split(":", 1) for line in status.splitlines() if line)
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"


def test_its_maps_are_those_of_a_server_without_a_container(container: Container) -> None:
    here = Server(DEFAULT_BUNDLE)
    try:
        with GatewayClient(container.url, api_key=KEY) as inside, GatewayClient(here.url) as outside:
            got, wanted = (client.predict(PHOTO) for client in (inside, outside))
    finally:
        assert here.stop() in CLEAN
    assert list(got) == list(wanted) == ["semseg", "depth", "normals", "saliency", "parsing"]
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)


def test_the_keys_are_a_secret_of_compose(container: Container) -> None:
    with container.client(key="x" * 40) as stranger:
        check_error(stranger.get("/models"), 401, "unauthorized")
        assert stranger.get("/health/ready").status_code == 200
    with container.client() as known:
        assert known.get("/models").status_code == 200


def test_many_large_images_write_nothing_and_stay_within_the_memory(container: Container) -> None:
    def ask(index: int) -> int:
        with container.client() as client:
            query = "format=npz" if index % 2 else "format=json&visualize=true"
            return client.post(f"/predict?{query}", content=LARGE, headers=PNG).status_code

    before = docker("diff", container.id)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(24))) <= {200, 429}
    with container.client() as client:
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
        assert client.post("/predict", content=GOOD, headers=PNG).status_code == 200
    assert docker("diff", container.id) == before
    found = container.inspect()
    assert (found["RestartCount"], found["State"]["OOMKilled"]) == (0, False)


def test_stop_finishes_what_was_accepted(tmp_path: Path) -> None:
    """Another bundle from a read-only volume, and ``docker compose stop`` while its slow images wait."""
    make_bundle(tmp_path / "bundles" / "tiny")
    tmp_path.chmod(0o755)
    environment = read(COMPOSE)["x-environment"] | {"MTCP_BUNDLE": "/bundles/tiny", "MTCP_CONCURRENCY": "1"}
    volume = f"{tmp_path / 'bundles'}:/bundles:ro"
    with up(tmp_path, volumes=[volume], environment=environment) as running, running.client() as client:
        with ThreadPoolExecutor(3) as pool:
            slow = [pool.submit(client.post, "/predict", content=SLOW, headers=PNG) for _ in range(3)]
            until(lambda: "mtcp_queue_requests 2.0" in client.get("/metrics").text)
            running.compose("stop", "gateway")
            assert [each.result().status_code for each in slow] == [200] * 3
        assert running.inspect()["State"]["ExitCode"] in (0, 143)
