"""The maps of an image from the gateway: ``python -m clients.examples.http_predict IMAGE``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clients.examples.describe import describe
from mtcp_serve.clients import ClientError, GatewayClient


def main(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    url: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8000",
) -> None:
    """Print what is in each map."""
    with GatewayClient(url) as client:
        try:
            maps = client.predict(image)
        except ClientError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
    for line in describe(maps):
        print(line)


if __name__ == "__main__":
    typer.run(main)
