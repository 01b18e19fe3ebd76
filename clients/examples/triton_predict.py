"""The maps of photos from Triton: ``python -m clients.examples.triton_predict PHOTO...``."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from clients import TritonClient
from mtcp_serve.bundle.manifest import DepthTask, LabelsTask


def main(
    photos: Annotated[list[Path], typer.Argument(help="Photos.")],
    endpoint: Annotated[str, typer.Option(help="Host and port of Triton's gRPC.")] = "127.0.0.1:8001",
    model: Annotated[str | None, typer.Option(help="Its name, where several are loaded.")] = None,
    shared_memory: Annotated[
        bool, typer.Option("--shared-memory", help="For a Triton on this host.")
    ] = False,
) -> None:
    """Print what is in each map."""
    failed = False
    with TritonClient(endpoint, model, shared_memory=shared_memory) as client:
        for photo, outcome in zip(photos, client.stream(photos), strict=True):
            if outcome.maps is None:
                failed = True
                print(f"{photo}: {outcome.error}", file=sys.stderr)
                continue
            print(f"{photo}: {outcome.maps.manifest.name} version {outcome.maps.version}")
            for name, values in outcome.maps.items():
                task = outcome.maps.task(name)
                found = f"{values.min():.2f} to {values.max():.2f}"
                if isinstance(task, LabelsTask):
                    present = [i for i in np.unique(values) if i != task.ignore_index]
                    found = ", ".join(task.labels[i] for i in present)
                elif isinstance(task, DepthTask):
                    found += f" {task.unit}"
                print(f"  {name}: {values.dtype} {'x'.join(map(str, values.shape))}: {found}")
    raise typer.Exit(failed)


if __name__ == "__main__":
    typer.run(main)
