"""Training steps in a process of their own."""

from pathlib import Path

import pytest

from benchmarks import training_step
from tests.needs import needs_posix
from tests.training.tiny import RUN


@needs_posix
def test_steps_are_measured() -> None:
    report = training_step.compare([training_step.ROOT], ["scenes", *RUN], rounds=1, threads=1)
    (step,) = report["steps"]
    assert step["seconds"] > 0
    assert step["processor"] >= step["system"]
    assert step["peak_mib"] > 100
    assert report["ratio"] == {"seconds": 1, "processor": 1}


def test_a_process_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = tmp_path / "fails.py"
    fails.write_text("raise SystemExit(3)")
    monkeypatch.setattr(training_step, "PROCESS", fails)
    with pytest.raises(RuntimeError, match="ended with status 3"):
        training_step.compare([training_step.ROOT], ["scenes"], rounds=1, threads=1)
