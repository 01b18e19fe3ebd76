"""What the images rely on, tried without them: no file is written, the probe tells, no torch is needed."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import trustme

from mtcp_serve.bundle import DEFAULT_BUNDLE
from mtcp_serve.server.healthcheck import ready
from mtcp_serve.server.settings import Settings
from tests.deploy.manifests import ROOT
from tests.mtcp_serve.process import CLEAN, Server, free_port, until
from tests.mtcp_serve.server.test_bad_input import PNG
from tests.mtcp_serve.support import encode, make_bundle, noise

LARGE = encode(noise(900, 1200))
"""About 3 MB: more than what web frameworks keep in memory of an upload."""
PATIENCE_S = 600
"""More than any step takes on a busy machine: it only keeps a test that went wrong from hanging."""
_AUDIT = """
import os, runpy, sys
LOG = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND)
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        written = writes and not isinstance(path, int) and not str(path).startswith("/dev/")
    else:
        written = event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp")
        path = arguments[0] if written else None
    if written:
        os.write(LOG, f"{event} {path}\\n".encode())
sys.addaudithook(watch)
runpy.run_module("mtcp_serve", run_name="__main__")
"""
"""Runs the server, and notes every file that Python would write."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def serve(folder: Path, log: Path, *arguments: object, **variables: str) -> subprocess.Popen[bytes]:
    """``mtcp-serve`` with ``folder`` as its only place to write, and what it writes noted in ``log``."""
    log.touch()
    places = {name: str(folder) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", _AUDIT, str(log), *map(str, arguments)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **places, **variables},
    )


def test_nothing_is_written(tiny: Path, tmp_path: Path) -> None:
    """The root file system may be read-only, without a tmpfs: uploads stay in memory, whatever their size."""
    folder, log = tmp_path / "home", tmp_path / "written"
    folder.mkdir()
    settings = Settings(port=free_port())
    ports = ("--port", settings.port, "--grpc-port", free_port())
    options = ("--bundle", tiny, "--intra-op-threads", 1, "--deadline-s", PATIENCE_S, *ports)
    process = serve(folder, log, "serve", *options, PYTHONDONTWRITEBYTECODE="1")
    try:
        until(lambda: ready(settings))
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=PATIENCE_S) as client:
            photos = [("image", (f"{index}.png", LARGE)) for index in range(3)]
            for answer in (
                client.post("/predict?format=npz&visualize=true", content=LARGE, headers=PNG),
                client.post("/predict?format=zip", files=photos[:1]),
                client.post("/predict/batch?format=json&size=model", files=photos),
                *(client.get(path) for path in ("/", "/docs", "/metrics", "/openapi.json")),
            ):
                assert answer.status_code == 200
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)
    assert log.read_text() == ""
    assert list(folder.iterdir()) == []


def test_what_is_written_would_be_noticed(tmp_path: Path) -> None:
    folder, log = tmp_path / "home", tmp_path / "written"
    folder.mkdir()
    assert serve(folder, log, "--version", PYTHONPYCACHEPREFIX=str(folder)).wait(timeout=PATIENCE_S) == 0
    assert ".pyc" in log.read_text()
    assert list(folder.iterdir()) != []


def probe(**variables: object) -> int:
    """Exit status of the images' health check."""
    given = {name: str(value) for name, value in variables.items()}
    command = [sys.executable, "-m", "mtcp_serve.server.healthcheck"]
    return subprocess.run(command, env={**os.environ, **given}, timeout=PATIENCE_S, check=False).returncode


def test_the_health_check(tiny: Path, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    leaf = authority.issue_cert("gateway.example")
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "other")}
    files["cert"].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(files["key"])
    stranger.cert_pem.write_to_path(files["other"])
    assert probe(MTCP_PORT=free_port()) == 1
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef")
    server = Server(tiny, tls_cert=files["cert"], tls_key=files["key"], api_keys_file=keys)
    try:
        port = server.client.base_url.port or 0
        tls = {"MTCP_TLS_CERT": files["cert"], "MTCP_TLS_KEY": files["key"]}
        assert probe(MTCP_PORT=port, **tls) == 0
        assert not ready(Settings(port=port))
        assert not ready(Settings(port=port, tls_cert=files["other"], tls_key=files["key"]))
        paths = {"tls_cert": files["cert"], "tls_key": files["key"], "tls_client_ca": files["other"]}
        assert ready(Settings(port=port, **paths))  # type: ignore[arg-type]
    finally:
        assert server.stop() in CLEAN


def test_a_server_that_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not ready(Settings(port=listener.getsockname()[1]))
        thread.join()


def test_the_repository_of_the_triton_image_needs_no_torch(tmp_path: Path) -> None:
    """What the build stage runs, on what the build context holds."""
    for package in ("mtcp_serve", "export"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
        "import export; assert export.__file__.startswith(sys.argv.pop(1)), export.__file__; "
        "runpy.run_module('export.triton', run_name='__main__')"
    )
    bundle = tmp_path / "mtcp_serve" / DEFAULT_BUNDLE.relative_to(ROOT / "mtcp_serve")
    repository = tmp_path / "repository"
    command = [sys.executable, "-c", code, str(tmp_path), str(bundle), "-o", str(repository)]
    subprocess.run([*command, "--backend", "onnxruntime"], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    assert (repository / "mtcp-lite" / "config.pbtxt").is_file()
    assert (repository / "mtcp-lite" / "2" / "model.onnx").is_file()
