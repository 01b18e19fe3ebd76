"""``mtcp-serve check``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.cli.common import (
    OLD_THREADS,
    OldThreadsOption,
    ThreadsOption,
    fail,
    plain,
    read_settings,
    take_old,
)
from mtcp_serve.errors import RequestError
from mtcp_serve.utils.exit_status import ExitStatus


def check(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.", exists=True, file_okay=False)],
    image: Annotated[
        Path | None,
        typer.Option(help="Image to run; a drawn one unless given.", exists=True, dir_okay=False),
    ] = None,
    intra_op_threads: ThreadsOption = None,
    photo: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, hidden=True)] = None,
    threads: OldThreadsOption = None,
) -> None:
    """Check a bundle: manifest, hashes, opset, nodes, graph, and the maps of an image. On the CPU.

    Exit status 0: all is well; 1: something is not; 2: nothing was checked, for what is given cannot be used.
    """
    from mtcp_serve.offline.check import check_bundle

    given: dict[str, Any] = {
        "image": image,
        "photo": photo,
        "intra_op_threads": intra_op_threads,
        "threads": threads,
    }
    take_old(given, {"photo": ("--photo", "image"), **OLD_THREADS})
    image = given["image"]
    threads = read_settings(intra_op_threads=given["intra_op_threads"]).intra_op_threads
    colors = {"ok": "green", "failed": "bold red", "not run": "yellow"}
    table = Table("check", "result", "found", box=None)
    failed = False
    try:
        for row in check_bundle(bundle, image.read_bytes() if image else None, threads):
            failed |= row.status != "ok"
            table.add_row(row.check, f"[{colors[row.status]}]{row.status}[/]", plain(row.detail))
    except (RequestError, OSError) as error:
        fail(f"{image}: {error}", ExitStatus.NOTHING_DONE)
    Console(soft_wrap=True).print(table)
    if failed:
        raise typer.Exit(ExitStatus.FAILED)
