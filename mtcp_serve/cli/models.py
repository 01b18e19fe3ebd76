"""``mtcp-serve models``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.bundle import BUNDLES
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import MANIFEST_FILE
from mtcp_serve.cli.common import BUNDLE_HINT, fail, plain
from mtcp_serve.errors import BundleError
from mtcp_serve.utils.exit_status import ExitStatus


def models(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders of bundles; by default those in the package."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The manifests as a JSON list, with folder and bytes of each.")
    ] = False,
) -> None:
    """List bundles: model, tasks, input size, weights."""
    folders = bundles or sorted(path.parent for path in BUNDLES.glob(f"*/{MANIFEST_FILE}"))
    if not folders:
        fail(f"this installation has no bundle in {BUNDLES}. {BUNDLE_HINT}", ExitStatus.NOTHING_DONE)
    try:
        found = [(bundle, bundle.graph().stat().st_size) for bundle in map(Bundle.open, folders)]
    except (BundleError, OSError) as error:
        fail(str(error), ExitStatus.NOTHING_DONE)
    if as_json:
        typer.echo(json.dumps([_entry(*each) for each in found], indent=2))
    else:
        Console(soft_wrap=True).print(_table(found))


def _entry(bundle: Bundle, size: int) -> dict[str, Any]:
    document = bundle.manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"folder": str(bundle.folder), "bytes": size, **document}


def _table(found: list[tuple[Bundle, int]]) -> Table:
    table = Table("model", "version", "tasks", "input", "parameters", "GMACs", "MB", "license", box=None)
    for bundle, size in found:
        manifest = bundle.manifest
        table.add_row(
            manifest.name,
            manifest.version,
            ", ".join(task.name for task in manifest.tasks),
            f"{manifest.input.width} x {manifest.input.height}",
            "" if manifest.parameters is None else f"{manifest.parameters:,}",
            "" if manifest.gmacs is None else f"{manifest.gmacs:.2f}",
            f"{size / 1e6:.1f}",
            plain(manifest.license or ""),
        )
    return table
