"""Counting operators: what counts, and that a step of the small network stays within its budget."""

import pytest
import torch
import typer

from benchmarks.operators import OperatorCount, count_step, main
from tests.training.tiny import tiny_run


def test_views_and_allocations_do_not_count() -> None:
    x = torch.ones(4, 6)
    with OperatorCount() as count:
        y = x.view(6, 4).transpose(0, 1)[:2].unsqueeze(0)
        torch.empty(3)
        (y + 1).mul_(2)
        y.contiguous()
    assert dict(count.names) == {"aten::add": 1, "aten::mul_": 1, "aten::clone": 1}


def test_tasks_do_not_multiply_operators() -> None:
    one, five = (
        count_step(tiny_run(*settings, "loss.lambda_geometry=0"), 64, 96)
        for settings in (["model.tasks={semseg: voc, depth: null}", "data.train.0.tasks={semseg: voc}"], [])
    )
    assert five["encode"] == one["encode"]
    assert five["decode"].total() <= one["decode"].total() + 10
    assert sum(part.total() for name, part in five.items() if name != "inference") < 2200
    assert five["inference"].total() < 600
    assert not {"aten::_local_scalar_dense", "aten::nonzero"} & set().union(*five.values())


def test_a_config_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main("nope")
    assert ended.value.exit_code == 2
    assert "error: no config 'nope'; give a YAML file or one of" in capsys.readouterr().err
