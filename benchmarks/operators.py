"""How many operators a step prepares, and how large the graph is: ``python -m benchmarks.operators CONFIG``.

A GPU waits for the host where steps are many small operators; this counts them, on a CPU, for one training
step (encode, decode, objective with balancing, backward, optimizer), for one inference, and the nodes and
bytes of the ONNX graph. Aside are views (operators whose result shares its argument's memory, with
``_unsafe_view``) and allocations (``empty`` and its like), which start nothing on a device. Prints JSON.
"""

import json
from collections import Counter
from contextlib import nullcontext
from typing import Annotated, Any

import torch
import typer
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.weighting import random_batch
from export.deployment_module import DeploymentGraph
from export.errors import told
from export.onnx.convert import convert
from training.balancing import Engine, build_balancer
from training.config import ConfigError, RunConfig, load_config
from training.data import Batch
from training.model import Network, build_network
from training.objective import Objective
from training.optim import build_optimizer

ASIDE = {"aten::_unsafe_view", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"}
PROFILER = "profiler::"
"""Operators that start nothing on a device, beside views."""
BATCH = 2


class OperatorCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators by name, as the module says."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not (func.is_view or name in ASIDE or name.startswith(PROFILER)):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def _step(
    config: RunConfig, network: Network, optimizer: Optimizer, engine: Engine, batch: Batch
) -> dict[str, OperatorCount]:
    objective = Objective(network.tasks, config.loss)
    images = batch["image"].contiguous(memory_format=torch.channels_last)
    reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
    parts = {name: OperatorCount() for name in ("encode", "decode", "objective", "backward", "optimizer")}
    optimizer.zero_grad()
    with torch.autocast("cpu", reduced) if reduced else nullcontext():
        with parts["encode"]:
            shared = network.encode(images)
        leaf = engine.leaf(shared)
        with parts["decode"]:
            predictions = network.decode(leaf)
    with parts["objective"]:
        terms = objective(predictions, batch)
        result = engine.total(terms, shared, leaf, epoch=0, step=0, scale=1.0)
    with parts["backward"]:
        result.total.backward()  # type: ignore[no-untyped-call]
    with parts["optimizer"]:
        optimizer.step()
    return parts


def count_step(config: RunConfig, height: int, width: int) -> dict[str, Counter[str]]:
    """Operators of a training step and of an inference, by part and name, in the config's precision.

    The second step counts: the first one makes constants and the optimizer's state.
    """
    torch.manual_seed(0)
    network = build_network(config.model).train()
    names = [task.name for task in network.tasks]
    engine = Engine(build_balancer(config.balancer.name, names, config.balancer.options))
    optimizer = build_optimizer(network, engine.balancer, config.optim)
    batch = random_batch(network.tasks, BATCH, height, width, "cpu")
    _step(config, network, optimizer, engine, batch)
    parts = _step(config, network, optimizer, engine, batch)
    parts["inference"] = OperatorCount()
    with torch.no_grad(), parts["inference"]:
        network.eval()(batch["image"])
    return {name: part.names for name, part in parts.items()}


def report(config: RunConfig, height: int, width: int, onnx: bool) -> dict[str, Any]:
    """What the command prints."""
    counts = {name: names.total() for name, names in count_step(config, height, width).items()}
    inference = counts.pop("inference")
    found: dict[str, Any] = {
        "config": config.name,
        "input": [BATCH, 3, height, width],
        "precision": config.precision,
        "training_step": counts | {"total": sum(counts.values())},
        "inference": inference,
    }
    if onnx:
        network = build_network(config.model)
        model = convert(DeploymentGraph(network, network.tasks, height, width)).model
        found["onnx"] = {"nodes": len(model.graph.node), "bytes": model.ByteSize()}
    return found


def main(
    config: Annotated[str, typer.Argument(help="Name or path of a training config.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings KEY=VALUE.")] = None,
    height: Annotated[int, typer.Option(help="Image height; the config's where it is 0.")] = 0,
    width: Annotated[int, typer.Option(help="Image width; the config's where it is 0.")] = 0,
    onnx: Annotated[bool, typer.Option(help="Export as well, which takes a minute.")] = True,
) -> None:
    """Count the operators of a training step and of an inference, and the nodes of the exported graph."""
    with told(ConfigError):
        run = load_config(config, ["root=unused", *(overrides or [])])
    print(json.dumps(report(run, height or run.data.height, width or run.data.width, onnx), indent=1))


if __name__ == "__main__":
    typer.run(main)
