"""Two processes with half a batch each do what one does with the joined batch, for every method."""

from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from tests.training.balancing.toy import TASKS, batch, plain, toy
from training.balancing import BALANCERS, Engine, MetaBalancer, build_balancer

STEPS = 4


def average(numbers: Tensor) -> Tensor:
    numbers = numbers.clone()
    distributed.all_reduce(numbers)
    return numbers / distributed.get_world_size()


def run(name: str, rank: int, ranks: int) -> dict[str, Any]:
    """Everything that a short run with ``name`` leaves behind; one epoch ends in the middle."""
    kind = (
        torch.float64 if name == "auto_lambda" else torch.float32
    )  # a difference of losses magnifies rounding
    network = toy().to(kind)
    balancer = build_balancer(name, TASKS, {"map": "exp"} if name == "ial" else {})
    reduce = average if ranks > 1 else Tensor.clone
    engine = Engine(balancer, reduce=reduce, ranks=ranks)
    model = DistributedDataParallel(network) if ranks > 1 else network
    optimizer = torch.optim.SGD([*network.parameters(), *balancer.parameters()], lr=0.05)
    totals = []
    for step in range(STEPS):
        inputs, targets = batch(8, seed=step)
        mine = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
        data = inputs[mine].to(kind), targets[mine].to(kind)
        if isinstance(balancer, MetaBalancer):
            ahead = data[0].flip(0), data[1].flip(0)
            balancer.meta_step(
                network, partial(plain, network, data), partial(plain, network, ahead), 0.1, reduce
            )
        balanced = model(*data, engine, step)
        optimizer.zero_grad()
        balanced.total.backward()
        optimizer.step()
        totals.append(balanced.losses)
        balancer.end_epoch(balanced.losses)
    return {"network": network.state_dict(), "engine": engine.state_dict(), "losses": torch.stack(totals)}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {name: run(name, rank, 2) for name in BALANCERS}
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    imported_once = [__name__, "torchjd.aggregation"]
    get_context("forkserver").set_forkserver_preload(imported_once)
    start_processes(work, (str(folder),), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_two_ranks_are_one_process(name: str, ranks: list[dict[str, dict[str, Any]]]) -> None:
    torch.testing.assert_close(ranks[0][name], ranks[1][name], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(ranks[0][name], run(name, 0, 1), rtol=1e-6, atol=1e-6, equal_nan=True)
