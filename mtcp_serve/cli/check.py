"""``mtcp-serve check``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.cli.common import NOTHING_DONE, SOME_FAILED, ThreadsOption, fail, plain
from mtcp_serve.errors import RequestError


def check(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.", exists=True, file_okay=False)],
    photo: Annotated[
        Path | None,
        typer.Option(help="Photo to run; a drawn picture unless given.", exists=True, dir_okay=False),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle: manifest, hashes, opset, nodes, graph, and the maps of a photo. On the CPU.

    Exit status 0: all is well; 1: something is not; 2: the photo cannot be used.
    """
    from mtcp_serve.offline.check import check_bundle

    colours = {"ok": "green", "failed": "bold red", "not run": "yellow"}
    table = Table("check", "result", "found", box=None)
    failed = False
    try:
        for row in check_bundle(bundle, photo.read_bytes() if photo else None, threads or 0):
            failed |= row.status != "ok"
            table.add_row(row.check, f"[{colours[row.status]}]{row.status}[/]", plain(row.detail))
    except (RequestError, OSError) as error:
        fail(f"{photo}: {error}", NOTHING_DONE)
    Console(soft_wrap=True).print(table)
    if failed:
        raise typer.Exit(SOME_FAILED)
