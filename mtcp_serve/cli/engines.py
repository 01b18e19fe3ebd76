"""``mtcp-serve engines``."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.cli.common import plain


def engines(
    as_json: Annotated[bool, typer.Option("--json", help="The same as a JSON list.")] = False,
) -> None:
    """List what can run models here, on which devices, why the others cannot, and what was measured.

    A device that is listed as there may still fail when a model is opened on it: its driver is met then.
    """
    from mtcp_serve.engines.loading import ENGINES, available_engines

    found = available_engines()
    if as_json:
        rows = [
            {
                "engine": name,
                "device": each.device,
                "available": each.problem is None,
                "problem": each.problem,
                "measured": ENGINES[name].measured,
            }
            for name, devices in found.items()
            for each in devices
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("engine", "device", "here", "why not", box=None)
    for name, devices in found.items():
        for each in devices:
            table.add_row(
                name, each.device, "no" if each.problem else "[green]yes[/]", plain(each.problem or "")
            )
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print("\nmeasured:")
    for name in found:
        if ENGINES[name].measured:
            console.print(f"  {name}: {plain(ENGINES[name].measured)}")
