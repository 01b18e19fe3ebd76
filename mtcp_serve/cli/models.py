"""``mtcp-serve models``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.bundle.manifest import MANIFEST_FILE, MODEL_FILE, Manifest
from mtcp_serve.cli.common import BUNDLE_HINT, NOTHING_DONE, fail, plain
from mtcp_serve.errors import BundleError
from mtcp_serve.server.settings import BUNDLES


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
        fail(f"this installation has no bundle in {BUNDLES}. {BUNDLE_HINT}", NOTHING_DONE)
    try:
        found = [(folder, Manifest.load(folder), (folder / MODEL_FILE).stat().st_size) for folder in folders]
    except (BundleError, OSError) as error:
        fail(str(error), NOTHING_DONE)
    if as_json:
        typer.echo(json.dumps([_entry(*bundle) for bundle in found], indent=2))
    else:
        Console(soft_wrap=True).print(_table(found))


def _entry(folder: Path, manifest: Manifest, size: int) -> dict[str, Any]:
    document = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"folder": str(folder), "bytes": size, **document}


def _table(found: list[tuple[Path, Manifest, int]]) -> Table:
    table = Table("model", "version", "tasks", "input", "parameters", "GMACs", "MB", "license", box=None)
    for _, manifest, size in found:
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
