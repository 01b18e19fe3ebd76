"""The groups of the optimizer."""

import pytest

from tests.training.tiny import tiny_model
from training.balancing import build_balancer
from training.config import OptimConfig
from training.model import MTCP
from training.optim import build_optimizer


@pytest.mark.parametrize(("options", "rate"), [({}, 0.025), ({"lr": 0.5}, 0.5), ({"lr": 0.0}, 0.0)])
def test_a_balancer_has_the_rate_it_asks_for_and_no_decay(options: dict[str, float], rate: float) -> None:
    network = MTCP(tiny_model(tasks={"parsing": "fashion"}, cfm=False, srm=False))
    optimizer = build_optimizer(network, build_balancer("gradnorm", 2, options), OptimConfig(lr=0.1))
    own = optimizer.param_groups[-1]
    assert (own["lr"], own["weight_decay"]) == (rate, 0.0)
    assert own["params"][0].shape == (2,)
