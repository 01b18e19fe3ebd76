"""Training steps of the checkout in ``PYTHONPATH``, one for each line read; see `benchmarks.training_step`.

A script, run with ``-P CONFIG KEY=VALUE...``: it takes from the checkout what all versions of the project
have. Prints a line of JSON for each step: seconds, processor seconds, page faults and peak mebibytes.
"""

import json
import resource
import sys
import time
from typing import Any

import torch

from benchmarks.weighting import random_batch
from training import training_step
from training.balancing import Engine, build_balancer
from training.config import load_config
from training.distributed import launch, loss_scale
from training.model import build_network
from training.objective import Objective
from training.optim import build_optimizer

try:
    from mtcp_serve.utils.memory import keep_freed
except ImportError:  # the checkout is older
    pass
else:
    keep_freed()


def main(name: str, *overrides: str) -> None:
    """Make a step for each line of the standard input."""
    config = load_config(name, list(overrides))
    fabric = launch(config)
    torch.manual_seed(0)
    network = build_network(config.model).to(memory_format=torch.channels_last).train()
    engine = Engine(
        build_balancer(config.balancer.name, [task.name for task in network.tasks], config.balancer.options)
    )
    optimizer = build_optimizer(network, engine.balancer, config.optim)
    step = training_step.Step(network, Objective(network.tasks, config.loss), engine)
    if config.compile:
        step.compile_with(config.compile)
    model, stepper = fabric.setup(step, optimizer)
    batch: Any = random_batch(
        network.tasks, config.data.batch_size, config.data.height, config.data.width, "cpu"
    )
    held = getattr(training_step, "Held", None)
    given = batch if held is None else held(batch)

    def once() -> None:
        fabric.backward(model(given, 0, 0, loss_scale(fabric)).total)
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.optim.clip_norm or float("inf"))
        stepper.step()
        stepper.zero_grad(set_to_none=True)

    for _ in sys.stdin:
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        once()
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        measured = {
            "seconds": seconds,
            "processor": user + system,
            "system": system,
            "page_faults": after.ru_minflt - before.ru_minflt,
            "peak_mib": after.ru_maxrss / 1024,
        }
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
