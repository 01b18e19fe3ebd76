"""``mtcp-serve models``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mtcp_serve.cli.common import BUNDLE_HINT, NOTHING_DONE, fail
from mtcp_serve.errors import BundleError
from mtcp_serve.manifest import MANIFEST_FILE, MODEL_FILE, Manifest
from mtcp_serve.settings import BUNDLES


def models(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE]...", help="Folders of bundles; by default those in the package."),
    ] = None,
) -> None:
    """List bundles: model, tasks, input size, weights."""
    folders = bundles or sorted(path.parent for path in BUNDLES.glob(f"*/{MANIFEST_FILE}"))
    if not folders:
        fail(f"this installation has no bundle in {BUNDLES}. {BUNDLE_HINT}", NOTHING_DONE)
    table = Table("model", "version", "tasks", "input", "parameters", "GMACs", "MB", "license", box=None)
    for folder in folders:
        try:
            manifest = Manifest.load(folder)
            megabytes = (folder / MODEL_FILE).stat().st_size / 1e6
        except (BundleError, OSError) as error:
            fail(str(error), NOTHING_DONE)
        table.add_row(
            manifest.name,
            manifest.version,
            ", ".join(task.name for task in manifest.tasks),
            f"{manifest.input.width} x {manifest.input.height}",
            "" if manifest.parameters is None else f"{manifest.parameters:,}",
            "" if manifest.gmacs is None else f"{manifest.gmacs:.2f}",
            f"{megabytes:.1f}",
            manifest.license or "",
        )
    Console(soft_wrap=True).print(table)
