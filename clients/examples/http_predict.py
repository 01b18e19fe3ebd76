"""The maps of a photo from the gateway: ``python -m clients.examples.http_predict PHOTO``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clients import ClientError, GatewayClient


def main(
    photo: Annotated[Path, typer.Argument(help="Photo.")],
    url: Annotated[str, typer.Option(help="Address of the gateway.")] = "http://127.0.0.1:8000",
) -> None:
    """Print what is in each map."""
    with GatewayClient(url) as client:
        try:
            answer = client.predict(photo)
        except ClientError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
    for name, values in answer.items():
        about = answer.about(name)
        found = f"{values.min():.2f} to {values.max():.2f} {about.get('unit', '')}".rstrip()
        if about["kind"] == "labels":
            found = ", ".join(about["labels"][i]["name"] for i in about["present"])
        print(f"{name}: {values.dtype} {'x'.join(map(str, values.shape))}: {found}")


if __name__ == "__main__":
    typer.run(main)
