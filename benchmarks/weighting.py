"""What each balancing method costs over a plain sum of the losses: ``python -m benchmarks.weighting``.

One step is forward, balancing and backward on random images and labels, without the optimizer's update, which
is the same for all. The methods take turns, so that a slow minute of the machine meets them all alike; times
are medians. Memory is the peak above what lay there before the step. Prints a Markdown table.
"""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from export.errors import told
from training.balancing import BALANCERS, Engine, MetaBalancer, build_balancer
from training.config import ConfigError, load_config
from training.data import Batch
from training.model import Network, build_network
from training.objective import Objective
from training.tasks import Task
from training.training_step import Held, Step

PLAIN = "plain sum"


def labels(task: Task, batch: int, height: int, width: int) -> Tensor:
    """Random labels of a task, as :data:`training.data.Sample` has them."""
    shape = (batch, 3 if task.kind == "normals" else 1, height, width)
    if task.kind == "labels":
        return torch.randint(0, task.channels, (batch, height, width))
    if task.kind == "normals":
        return torch.nn.functional.normalize(torch.randn(shape), dim=1)
    return torch.rand(shape) + (0.5 if task.kind == "depth" else 0.0)


def random_batch(tasks: list[Task], batch: int, height: int, width: int, device: str) -> Batch:
    """Images and labels of noise on ``device``, seen by a camera as wide as its focal length."""
    maps = {task.name: labels(task, batch, height, width) for task in tasks}
    maps["image"] = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    if {"depth", "normals"} <= maps.keys():
        maps["focal"] = torch.ones(batch, 2)
    return {name: value.to(device) for name, value in maps.items()}


def steps(
    network: Network, objective: Objective, batches: list[Batch], every: int
) -> dict[str, Callable[[int], None]]:
    """By method, one step that is given its number; ``manual`` is ``equal`` with other numbers."""

    def losses(batch: Batch) -> tuple[Tensor, Tensor]:
        terms = objective(network(batch["image"].contiguous(memory_format=torch.channels_last)), batch)
        return torch.stack(list(terms.losses)), torch.stack([*terms.aux_losses, terms.coherence_loss]).sum()

    def plain(step: int) -> None:
        final, rest = losses(batches[0])
        (final.sum() + rest).backward()  # type: ignore[no-untyped-call]

    def balanced(name: str) -> Callable[[int], None]:
        balancer = build_balancer(name, [task.name for task in network.tasks], {})
        engine = Engine(balancer, update_interval=every).to(batches[0]["image"].device)
        forward = Step(network, objective, engine)

        def run(step: int) -> None:
            if isinstance(balancer, MetaBalancer):
                balancer.meta_step(network, lambda: losses(batches[0]), lambda: losses(batches[1]), 1e-3)
            forward(Held(batches[0]), 0, step, 1.0).total.backward()

        return run

    return {PLAIN: plain} | {name: balanced(name) for name in sorted(BALANCERS) if name != "manual"}


def peak_memory(run: Callable[[], object], device: str) -> int:
    """Bytes that ``run`` needs at its peak above what is allocated before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    level = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak


def measure(
    methods: dict[str, Callable[[int], None]], network: Network, device: str, bf16: bool, rounds: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds and peak MiB of every method, and both over the plain sum's."""

    def once(run: Callable[[int], None], step: int) -> float:
        network.zero_grad(set_to_none=True)
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            run(step)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once(methods[PLAIN], 0)  # warm up
    memory = {}
    for name, run in methods.items():
        network.zero_grad(set_to_none=True)
        memory[name] = peak_memory(partial(once, run, 0), device)
    times: dict[str, list[float]] = {name: [] for name in methods}
    for step in range(rounds):
        for name, run in methods.items():
            times[name].append(once(run, step))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        name: {
            "milliseconds": round(1e3 * medians[name], 2),
            "over_plain": round(medians[name] / medians[PLAIN], 3),
            "peak_mib": round(memory[name] / 2**20, 1),
            "memory_over_plain": round(memory[name] / memory[PLAIN], 3),
        }
        for name in methods
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| method | step, ms | over a plain sum | peak, MiB | over a plain sum |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['milliseconds']:.1f} | {row['over_plain']:.2f} "
            f"| {row['peak_mib']:.0f} | {row['memory_over_plain']:.2f} |"
        )
    return "\n".join(lines)


def main(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as key=value; root=unused where a config asks for a root."),
    ] = None,
    config: Annotated[
        str, typer.Option(help="The configuration whose network and losses are used.")
    ] = "scenes",
    height: Annotated[int, typer.Option(help="Image height.")] = 64,
    width: Annotated[int, typer.Option(help="Image width.")] = 96,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 2,
    rounds: Annotated[int, typer.Option(help="Timed steps a method.")] = 9,
    every: Annotated[int, typer.Option(help="Steps between two Gramians.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    bf16: Annotated[bool, typer.Option(help="Mixed precision.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the report here as JSON.")] = None,
) -> None:
    """Time a training step with each balancing method."""
    torch.manual_seed(0)
    with told(ConfigError):
        run = load_config(config, overrides or [])
    network = build_network(run.model).to(device).to(memory_format=torch.channels_last).train()
    batches = [random_batch(run.tasks, batch, height, width, device) for _ in range(2)]
    methods = steps(network, Objective(run.tasks, run.loss), batches, every)
    rows = measure(methods, network, device, bf16, rounds)
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report: dict[str, Any] = {
        "device": where,
        "torch": torch.__version__,
        "config": config,
        "tasks": [task.name for task in run.tasks],
        "input": [batch, 3, height, width],
        "precision": "bf16" if bf16 else "fp32",
        "every": every,
        "rounds": rounds,
        "methods": rows,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(", ".join(f"{key} {value}" for key, value in report.items() if key != "methods"))
    print(table(rows))


if __name__ == "__main__":
    typer.run(main)
