"""The benchmarks of the gateway run, and print what the documentation states."""

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.load import memory_report
from benchmarks.serving.loops import Outcome, closed_loop, open_loop, percentiles
from tests.mtcp_serve.support import GOOD, HEIGHT, TASKS, WIDTH, make_bundle

LAYERS = {"engine", "arrays, model size", "PNG, image size"}


def python(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    make_bundle(folder / "tiny")
    (folder / "photo.png").write_bytes(GOOD)
    return folder


def test_serving(folder: Path) -> None:
    options = ["--bundle", folder / "tiny", "--threads", 1, "--runs", 2, "--clients", "1,2", "--rounds", 1]
    times = ["--seconds", 0.05, "--open-seconds", 0.2, "--starts", 1]
    out = folder / "report.json"
    text = python("benchmarks.serving", folder / "photo.png", *options, *times, "--json", out)
    report = json.loads(out.read_text())
    assert set(report["one_at_a_time"]) == set(report["closed_loop"]) == LAYERS
    loops = [row for rows in report["closed_loop"].values() for row in rows.values()]
    assert len(loops) == 6
    for row in [*report["one_at_a_time"].values(), *loops]:
        assert row["p50"] <= row["p90"] <= row["p95"] <= row["p99"]
        assert row["statuses"] == {"200": row["answers"]}
        assert row["errors"] == {}
    assert set(report["open_loop"]) == {"0.5", "0.8", "1.2"}
    assert set(report["headline"]) == LAYERS - {"engine"}
    pixels = HEIGHT * WIDTH
    for size in ("input", "model"):  # the image is of the model's size
        assert report["bytes"][size]["npz"] > (1 + 4 + 12 + 4 + 1) * pixels
        assert set(report["encode_ms"][size]) == {task.name for task in TASKS}
    assert report["resident_mb"]["peak"] >= report["resident_mb"]["after the run"]
    assert report["start_to_ready_s"]["each"] == [report["start_to_ready_s"]["median"]]
    for name in LAYERS:
        assert name in text


def test_load(folder: Path) -> None:
    """Twice as many clients as the server takes; its network is slow enough for them to be there together."""
    options = ["--clients", 6, "--seconds", 1.5, "--threads", 1, "--concurrency", 1, "--queue-size", 2]
    report = json.loads(
        python("benchmarks.load", *options, "--deadline-s", 110, "--image", folder / "photo.png")
    )
    assert set(report["statuses"]) == {"200", "429"}
    assert report["offered_over_answered"] > 1
    assert report["longest_queue"] <= 2
    assert report["verdict"] == dict.fromkeys(("only_200_and_429", "queue_bounded", "within_deadline"), True)
    assert report["resident_mb"]["curve"]


def test_the_memory_curve_of_a_leak() -> None:
    report = memory_report([(second, 300 + max(0, 50 - second) + second / 60) for second in range(600)])
    assert report["slope_mb_per_min"] == 1.0
    assert report["max_minus_min_mb"] == 5.0
    assert len(report["curve"]) == 60  # type: ignore[arg-type]


def test_an_open_loop_counts_the_wait_of_what_was_due() -> None:
    """One call at a time, 50 ms each, sent twice as fast as that: the last waits for all before it."""
    with ThreadPoolExecutor(1) as pool:

        async def call() -> tuple[int, int]:
            await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.05)
            return 200, 7

        outcome = asyncio.run(open_loop(call, 40, 0.5))
        alone = asyncio.run(closed_loop(call, 1, at_least=3))
    assert len(outcome.ms) == 20
    assert max(outcome.ms) > 300
    assert len(alone.ms) == 3
    assert Outcome.merge([outcome, alone]).summary()["bytes"] == 7


def test_percentiles_of_nothing() -> None:
    assert set(percentiles([]).values()) == {None}
    assert percentiles(np.arange(101).tolist()) == {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
