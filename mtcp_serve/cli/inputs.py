"""What ``mtcp-serve predict`` works on: files and folders that exist, cameras and addresses."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mtcp_serve.errors import MtcpServeError

if TYPE_CHECKING:
    from mtcp_serve.offline.live.address import Address


def parse_input(text: str) -> "Path | Address":
    """The file or folder, camera or address that was written.

    Raises:
        BadParameter: it is none that can be.
    """
    from mtcp_serve.offline.live.address import Address

    if Address.is_one(text):
        try:
            return Address(text)
        except MtcpServeError as error:
            raise typer.BadParameter(str(error)) from error
    path = Path(text)
    if not path.exists():
        raise typer.BadParameter(f"Path {text!r} does not exist.")
    return path
