"""The servers that the gateway is compared with do the same work, and the comparison runs."""

import json
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from benchmarks.machine import descendants, processor_seconds
from benchmarks.peers.servers import PEERS
from benchmarks.peers.work import Work
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.server.app import create_app
from mtcp_serve.server.settings import Settings
from tests.mtcp_serve.support import TASKS, encode, make_bundle, noise

PHOTO = encode(noise(61, 83))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("peers"))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_peers_answer_what_the_gateway_answers(tiny: Path, engine: str) -> None:
    work = Work(Bundle.open(tiny), engine, 1)
    settings = Settings(bundle=(tiny,), engine=engine, intra_op_threads=1)
    with TestClient(create_app(settings)) as client:
        headers = {"Content-Type": "application/octet-stream"}
        npz = client.post("/predict?format=npz&size=model", content=PHOTO, headers=headers).content
        answer = client.post("/predict?format=json&size=input", content=PHOTO, headers=headers).json()
    mine = np.load(BytesIO(npz))
    theirs = np.load(BytesIO(work.answer(PHOTO, "npz")))
    files = json.loads(work.answer(PHOTO, "json"))
    for task in TASKS:
        assert np.array_equal(mine[task.name], theirs[task.name])
        pictures = [b64decode(data) for data in (files[task.name], answer["maps"][task.name]["png"])]
        first, second = (np.asarray(Image.open(BytesIO(data))) for data in pictures)
        assert first.shape[:2] == (61, 83)
        assert np.array_equal(first, second)


def test_the_comparison(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PHOTO)
    out = tmp_path / "report.json"
    loops = ["--clients", "1,2", "--seconds", "0.05", "--rounds", "1", "--threads", "1"]
    here = str(Path(__file__).parents[2])
    options = ["--bundle", str(tiny), "--peers", "plain FastAPI", "--against", here, "--json", str(out)]
    command = [sys.executable, "-m", "benchmarks.peers", str(tmp_path / "photo.png"), *options, *loops]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report = json.loads(out.read_text())
    names = {"mtcp-serve", "earlier version", "plain FastAPI"}
    for form in ("npz", "json"):
        assert set(report["answers"][form]) == {"1", "2"}
        for row in report["answers"][form].values():
            assert set(row) == names
            assert row["mtcp-serve"]["gateway_over_it"] == 1
            for each in row.values():
                assert each["statuses"] == {"200": each["answers"]}
                assert each["errors"] == {}
    for row in report["resident_mb"].values():
        assert min(row.values()) > 20
    for name in names:
        assert name in text


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.peers.servers.find_spec", lambda name: None)
    problem = PEERS["LitServe"].problem()
    assert problem is not None
    assert problem.startswith("litserve is not installed; pip install")


def test_what_processes_have_computed() -> None:
    """A worker of a worker is found, and counted."""
    inner = "import sys; sum(range(10**7)); print(flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        (worker,) = descendants(process.pid)
        assert 0 < processor_seconds([worker]) < 60
        process.communicate(b"")
