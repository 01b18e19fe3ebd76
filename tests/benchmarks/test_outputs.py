"""The benchmark of formats, streams and smoothing runs, and says what is true of the tiny bundle."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.outputs.formats import QUERIES
from benchmarks.outputs.stream import BURST
from tests.mtcp_serve.support import GOOD, make_bundle


def test_outputs(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny")
    photo, out = tmp_path / "photo.png", tmp_path / "report.json"
    photo.write_bytes(GOOD)
    options = ["--bundle", bundle, "--threads", 1, "--rounds", 1, "--frames", 12, "--json", out]
    command = [sys.executable, "-m", "benchmarks.outputs", photo, *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    report = json.loads(out.read_text())
    for size, pixels in (("512 x 512", 512 * 512), ("1920 x 1080", 1920 * 1080)):
        rows = report["formats"][size]
        assert rows.keys() == QUERIES.keys()
        assert 4 * pixels < rows["npz, depth"]["bytes"] < 4 * pixels + 10_000
        assert rows["npz, all maps"]["bytes"] > (1 + 4 + 12 + 4 + 1) * pixels
        assert all(row["beyond_inference_ms"] > 0 for row in rows.values())
        assert size in done.stdout
    assert 1 <= report["stream"]["answers of 60 at once"] <= BURST
    for row in report["smooth"].values():  # the tiny bundle's maps are the picture: its noise is theirs
        assert row["flicker left"] < 0.6
        assert row["pan, error smoothed"] == pytest.approx(row["pan, error as it is"], rel=0.2)
