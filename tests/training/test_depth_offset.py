"""Shifting metric depth: one bias, by how much is closed form where a map is constant."""

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests.training.tiny import tiny_model, tiny_run
from training.checkpoint import load_network, save
from training.cli import app
from training.data import Batch
from training.depth_offset import NoMetricDepthError, shift_depth
from training.model import MTCP, build_network
from training.views import training_views


def _constant(activation: str, bias: float) -> MTCP:
    network = MTCP(tiny_model(depth_activation=activation))
    with torch.no_grad():
        network.branches.head.weight.zero_()
        network.output_bias("depth").fill_(bias)
    return network


def _batch(*metres: float) -> Batch:
    labels = torch.tensor(metres)[:, None, None, None].expand(-1, 1, 64, 96).clone()
    images = torch.randint(0, 256, (len(metres), 3, 64, 96), dtype=torch.uint8)
    return {"image": images, "depth": labels}


@pytest.mark.parametrize("activation", ["none", "softplus"])
def test_a_constant_is_shifted_by_its_mean_error(activation: str) -> None:
    network = _constant(activation, 1.5)
    half = _batch(1.0, 0.0)  # the second has no label
    half["depth"][0, :, :, 48:] = 0
    found = shift_depth(network, [half, _batch(3.0), {"image": half["image"]}])
    metres, slope = (
        (1.5, 1.0) if activation == "none" else (math.log1p(math.exp(1.5)), 1 - 1 / (1 + math.exp(1.5)))
    )
    error = metres - (1.0 + 2 * 3.0) / 3  # half the pixels of one image and all of another
    assert found.images == 2
    assert found.bias == pytest.approx(error, abs=1e-5)
    assert found.added == pytest.approx(-error / slope, abs=1e-5)
    assert network.output_bias("depth").item() == pytest.approx(1.5 + found.added, abs=1e-6)


def test_a_network_right_on_average_stays_as_it_is() -> None:
    network = _constant("none", 2.0)
    found = shift_depth(network, [_batch(1.0, 3.0)])
    assert found.bias == pytest.approx(0, abs=1e-5)
    assert network.output_bias("depth").item() == pytest.approx(2, abs=1e-5)


def test_without_metres_there_is_nothing_to_shift() -> None:
    with pytest.raises(NoMetricDepthError, match="label in metres"):
        shift_depth(_constant("none", 2.0), [_batch(0.0)])
    tasks = tiny_model().model_copy(
        update={"tasks": {"normals": None, "saliency": None}, "depth_activation": "none"}
    )
    with pytest.raises(NoMetricDepthError, match="no task of depth"):
        shift_depth(MTCP(tasks), [_batch(1.0)])


@pytest.mark.parametrize("bias", [-3.0, 40.0])
def test_depth_that_is_all_clamped_is_not_called_unlabelled(bias: float) -> None:
    network = _constant("none", bias)
    with pytest.raises(NoMetricDepthError, match=r"in 3 images, is clamped to 0\.1 or 10 m, .* train"):
        shift_depth(network, [_batch(1.0, 3.0), _batch(0.0), _batch(2.0)])
    assert network.output_bias("depth").item() == bias


def test_the_command_changes_one_number_and_depth_gets_nearer(tmp_path: Path) -> None:
    settings = tiny_run("data.train.0.count=12")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(settings.model)
    before, after = tmp_path / "before.pt", tmp_path / "after.pt"
    save(before, {"config": settings.model_dump(mode="json"), "model": network.state_dict()})
    done = CliRunner().invoke(app, ["shift-depth", str(before), "-o", str(after), "--images=12"])
    assert done.exit_code == 0, done.output
    assert "m off on average in 12 images" in done.output
    old, new = load_network(before)[0], load_network(after)[0]
    values = new.state_dict()
    changed = {
        name: (value.half() != values[name].half()).sum().item() for name, value in old.state_dict().items()
    }
    assert {name: count for name, count in changed.items() if count} == {"branches.head.bias": 1}
    views = list(training_views(settings, 12, None, "cpu", quiet=True))
    assert abs(shift_depth(new, views).bias) < 0.1 * abs(shift_depth(old, views).bias)
