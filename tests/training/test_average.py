"""The average of the weights: its warm-up, its buffers, its closed form."""

import pytest
import torch
from torch import nn

from tests.training.tiny import tiny_model
from training.average import WeightAverage, warm_decay
from training.model import MTCP


def small() -> MTCP:
    return MTCP(tiny_model(tasks={"depth": None}, cfm=False, srm=False))


def test_the_decay_warms_up() -> None:
    assert warm_decay(0.997, 0) == 0.1
    assert warm_decay(0.997, 8) == 0.5
    assert warm_decay(0.997, 10**6) == 0.997
    assert warm_decay(0.3, 8) == 0.3


def test_little_is_left_of_the_starting_weights() -> None:
    """A constant decay of .997 keeps .997^503 = 22 % of them after 503 steps."""
    left = 1.0
    for update in range(1, 504):
        left *= warm_decay(0.997, update)
    assert left < 1e-6


def test_it_is_the_weighted_mean_of_the_weights_so_far() -> None:
    torch.manual_seed(0)
    network = small()
    average = WeightAverage(network, 0.9)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for update in range(1, 4):
        with torch.no_grad():
            for value in network.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn_like(value))
                else:
                    value.add_(1)
        average.update(network)
        decay = warm_decay(0.9, update)
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_it_is_no_part_of_the_network_it_follows() -> None:
    network = small()
    average = WeightAverage(network, 0.9)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
    ours = {value.data_ptr() for value in average.module.state_dict().values() if value.numel()}
    assert ours.isdisjoint(value.data_ptr() for value in network.state_dict().values())
    assert average.updates == 0
    average.update(network)
    assert average.updates == 1
    assert pytest.approx(1 - warm_decay(0.9, 1)) == 1 - 2 / 11
