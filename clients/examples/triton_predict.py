"""The maps of images from Triton: ``python -m clients.examples.triton_predict IMAGE...``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clients.examples.describe import describe
from mtcp_serve.clients import TritonClient


def main(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    endpoint: Annotated[str, typer.Option(help="Host and port of Triton's gRPC.")] = "127.0.0.1:8001",
    model: Annotated[str | None, typer.Option(help="Its name, where several are loaded.")] = None,
    shared_memory: Annotated[
        bool, typer.Option("--shared-memory", help="For a Triton on this host.")
    ] = False,
) -> None:
    """Print what is in each map."""
    failed = False
    with TritonClient(endpoint, model, shared_memory=shared_memory) as client:
        for image, outcome in zip(images, client.stream(images), strict=True):
            if outcome.prediction is None:
                failed = True
                print(f"{image}: {outcome.error}", file=sys.stderr)
                continue
            (made_by,) = outcome.prediction.metadata["models"]
            print(f"{image}: {made_by['name']} version {made_by['version']}")
            for line in describe(outcome.prediction):
                print(f"  {line}")
    raise typer.Exit(failed)


if __name__ == "__main__":
    typer.run(main)
