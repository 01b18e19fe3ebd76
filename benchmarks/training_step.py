"""A training step on a CPU, beside another checkout's: ``python -m benchmarks.training_step CONFIG``.

A step is forward, objective, balancing, backward and optimizer, on random images and labels and with random
weights. Each checkout has a process of its own, settled as its ``python -m training`` is, and they take turns
step by step. Prints JSON: of each the least seconds by the clock and of processor time (all threads, user and
system), the fewest page faults and the peak memory, and the ratio of this checkout to that of ``--against``.
Processor time is less a matter of what else the machine does; that the threads of OpenMP do not count while
they wait for each other, they sleep (``OMP_WAIT_POLICY=passive``).
"""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any, Self

import typer

from benchmarks.machine import machine

ROOT = Path(__file__).parent.parent
PROCESS = Path(__file__).with_name("step_process.py")
WARM_UP = 2
"""Steps that do not count: they make constants and moments, and fill the heap."""


class Process:
    """Makes the steps of the code in ``checkout``; see `benchmarks.step_process`."""

    def __init__(self, checkout: Path, settings: list[str], threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROCESS), *settings],
            env={
                **os.environ,
                "PYTHONPATH": str(checkout.resolve()),
                "OMP_NUM_THREADS": str(threads),
                "OMP_WAIT_POLICY": "passive",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.least: dict[str, float] = {}

    def step(self, counts: bool = True) -> None:
        """One more step, which may be one that does not count."""
        commands, answers = self._pipes()
        commands.write("step\n")
        commands.flush()
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"the process of a step ended with status {self._process.wait()}")
        measured: dict[str, float] = json.loads(answer)
        if counts:
            self.least = {name: min(value, self.least.get(name, value)) for name, value in measured.items()}

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes():
            pipe.close()
        self._process.wait()


def compare(checkouts: list[Path], settings: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """The report on ``rounds`` steps of each checkout; the first is the one to compare with."""
    report: dict[str, Any] = machine(threads)
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(checkout, settings, threads)) for checkout in checkouts]
        for number in range(WARM_UP + rounds):
            for process in processes:
                process.step(counts=number >= WARM_UP)
    least = [process.least for process in processes]
    report["steps"] = [{name: round(value, 3) for name, value in found.items()} for found in least]
    report["ratio"] = {name: round(least[-1][name] / least[0][name], 3) for name in ("seconds", "processor")}
    return report


def main(
    config: Annotated[str, typer.Argument(help="Name or path of a training config that all can read.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings KEY=VALUE.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another checkout of this project.", exists=True, file_okay=False)
    ] = None,
    rounds: Annotated[int, typer.Option(help="Steps of each that count, in turns.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Of PyTorch.", min=1)] = os.cpu_count() or 1,
) -> None:
    """Measure training steps on a CPU, at the batch size of the config."""
    checkouts = [ROOT] if against is None else [against, ROOT]
    settings = [config, "root=unused", "device=cpu", *(overrides or [])]
    print(json.dumps(compare(checkouts, settings, rounds, threads), indent=1))


if __name__ == "__main__":
    typer.run(main)
