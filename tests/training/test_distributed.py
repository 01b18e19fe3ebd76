"""Two processes are one: same weights, same records, and what one cannot use both skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training import ranks
from tests.training.test_trainer import assert_same
from tests.training.tiny import tiny_run
from training import checkpoint
from training.config import ConfigError
from training.data import Mixture, MixtureSampler, build_source
from training.distributed import ShardSampler
from training.run_log import read_history
from training.trainer import LAST, Trainer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes, started by torchrun, and one process wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    done = subprocess.run(
        [
            *torchrun,
            "--rdzv-backend=c10d",
            "--rdzv-endpoint=localhost:0",
            "-m",
            "tests.training.ranks",
            folder,
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks.trainer(folder / "one", 1).train()
    return folder


def test_two_ranks_equal_one_process_with_the_joined_batch(runs: Path) -> None:
    one, two = (checkpoint.load(runs / name / LAST) for name in ("one", "two"))
    start = Trainer(ranks.config(1), runs).network.state_dict()
    moved = torch.stack([(one["model"][name] - value).abs().max() for name, value in start.items()])
    assert moved.max() > 1e-3, "the comparison below is not of untouched weights"
    for part in ("model", "ema", "engine"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=0, atol=1e-6, msg=f"{part} {name}")
    histories = [read_history(runs / name / "history.csv") for name in ("one", "two")]
    for mine, theirs in zip(*histories, strict=True):
        assert {key for key, cell in mine.items() if cell} == {key for key, cell in theirs.items() if cell}
        for column in {key for key, cell in mine.items() if cell} - {"seconds"}:
            assert float(theirs[column]) == pytest.approx(float(mine[column]), rel=1e-3, abs=1e-4), column


def test_two_resumed_ranks_equal_two_uninterrupted_ones(runs: Path) -> None:
    whole, cut = (checkpoint.load(runs / name / LAST) for name in ("two", "cut"))
    for state in (whole, cut):
        assert state.pop("seconds") > 0
    assert_same(whole, cut)


def test_shards_are_the_batch() -> None:
    config = tiny_run().data
    mixture = Mixture([build_source(config.train[0], tiny_run().tasks, (64, 96), None)])
    order = MixtureSampler(mixture, 0, 4, 10)
    whole = list(order)
    parts = [list(ShardSampler(order, 4, rank, 2)) for rank in range(2)]
    assert [len(part) for part in parts] == [5, 5]
    assert parts[0][:2] + parts[1][:2] == whole[:4]
    assert parts[0][2:4] + parts[1][2:4] == whole[4:8]
    assert [parts[0][4], parts[1][4]] == whole[8:]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 3 cannot be shared by 2 processes"):
        Trainer(tiny_run("data.batch_size=3", "devices=2"), tmp_path)
