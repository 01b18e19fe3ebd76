"""One forward and one backward of the paper's network at full size: ``python -m benchmarks.full_size``.

Prints JSON: parameters, seconds of each pass and the peak resident memory of the process.
"""

import json
import resource
import time
from typing import Annotated

import torch
import typer

from training.config import load_config
from training.model import build_network


def main(
    height: Annotated[int, typer.Option(help="Image height.")] = 480,
    width: Annotated[int, typer.Option(help="Image width.")] = 640,
    batch: Annotated[int, typer.Option(help="Images.")] = 1,
) -> None:
    """Time one forward and one backward pass of the paper's network, and tell its memory."""
    torch.manual_seed(0)
    network = build_network(load_config("nyud_swin_small", ["root=unused"]).model).train()
    start = time.perf_counter()
    predictions = network(torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8))
    forward = time.perf_counter() - start
    maps = [*predictions.final.values(), *(m for maps in predictions.intermediate.values() for m in maps)]
    loss = torch.stack([m.abs().mean() for m in maps]).sum() + predictions.cosine
    start = time.perf_counter()
    loss.backward()
    report = {
        "parameters_m": round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
        "input": [batch, 3, height, width],
        "threads": torch.get_num_threads(),
        "forward_s": round(forward, 1),
        "backward_s": round(time.perf_counter() - start, 1),
        "peak_resident_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "gradients_finite": all(
            p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters()
        ),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    typer.run(main)
