"""A run's history.csv: what a hand has damaged is named, and nothing is written over it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.tiny import RUN
from training.cli import app
from training.run_log import History, HistoryError, read_history
from training.trainer import LAST

runner = CliRunner()
SHORT = [*RUN, "data.samples_per_epoch=2"]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Three epochs in a run folder."""
    written = History(tmp_path, tensorboard=False)
    for epoch in range(3):
        written.epoch({"epoch": epoch, "step": 10 * epoch, "loss/depth": 0.5, "loss/semseg": float("nan")})
    assert len(read_history(tmp_path / "history.csv")) == 3
    return tmp_path / "history.csv"


def replace(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda text: text.replace(old.encode(), new.encode("latin-1"), 1)


@pytest.mark.parametrize(
    ("damage", "line", "message"),
    [
        (replace("1,10,", "garbage\r\n1,10,"), 3, "1 cells under 4 columns"),
        (replace("epoch,", "epok,"), 1, "there is no column epoch"),
        (replace("epoch,", ""), 1, "there is no column epoch"),
        (replace("2,20,0.5,", "2,20,"), 4, "3 cells under 4 columns"),
        (replace("2,20,", "2,20,7,"), 4, "5 cells under 4 columns"),
        (replace("1,10,0.5", "1,10,half"), 3, "could not convert string to float: 'half'"),
        (replace("1,10", "one,10"), 3, "invalid literal"),
        (replace("1,10", "1,\xff10"), 3, "could not convert"),
        (lambda text: text[:-9], 4, "3 cells under 4 columns"),
    ],
)
def test_plot_names_the_damaged_line(
    history: Path, damage: Callable[[bytes], bytes], line: int, message: str
) -> None:
    whole = history.read_bytes()
    history.write_bytes(damage(whole))
    assert history.read_bytes() != whole
    done = runner.invoke(app, ["plot", str(history.parent)])
    assert done.exit_code == 2
    assert f"{history}, line {line}: {message}" in done.output
    assert "mend or remove the line" in done.output


def test_a_run_does_not_go_on_over_a_damaged_history(tmp_path: Path) -> None:
    command = ["train", "scenes", *SHORT, "--run", str(tmp_path)]
    assert runner.invoke(app, [*command, "epochs=1"]).exit_code == 0
    (tmp_path / LAST).unlink()
    history = tmp_path / "history.csv"
    whole = history.read_bytes()
    history.write_bytes(whole + b"garbage\r\n")
    done = runner.invoke(app, command)
    assert done.exit_code == 2
    assert f"{history}, line 3: 1 cells under " in done.output
    assert history.read_bytes() == whole + b"garbage\r\n"
    assert not (tmp_path / LAST).exists(), "it is said before an epoch is trained"


def test_a_resumed_run_keeps_a_damaged_history_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    command = ["train", "scenes", *SHORT, "--run", str(tmp_path)]
    assert runner.invoke(app, command).exit_code == 0
    history, last = tmp_path / "history.csv", (tmp_path / LAST).read_bytes()
    whole = history.read_bytes()
    history.write_bytes(b"garbage\r\n" + whole)
    done = runner.invoke(app, command)
    assert done.exit_code == 2
    assert f"{history}, line 1: there is no column epoch" in done.output
    assert history.read_bytes() == b"garbage\r\n" + whole
    assert (tmp_path / LAST).read_bytes() == last
    history.write_bytes(whole)
    assert runner.invoke(app, command).exit_code == 0
    assert history.read_bytes() == whole


def test_no_history_and_an_empty_one_have_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert read_history(path) == []
    path.touch()
    assert read_history(path) == []
    path.write_text("step\n1\n")
    with pytest.raises(HistoryError, match="line 1: there is no column epoch"):
        read_history(path)
