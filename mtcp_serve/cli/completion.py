"""What the shell offers after ``--tasks``, ``--video`` and ``--overlay``: the tasks of the chosen bundles."""

import typer

from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.errors import BundleError


def complete_tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Comma lists that go on from ``incomplete`` by one task."""
    given, comma, last = incomplete.rpartition(",")
    return [
        given + comma + name
        for name in _tasks(ctx)
        if name.startswith(last.strip()) and name not in given.split(",")
    ]


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tasks that begin with ``incomplete``."""
    return [name for name in _tasks(ctx) if name.startswith(incomplete)]


def complete_format(incomplete: str) -> list[str]:
    """Response formats that begin with ``incomplete``."""
    from mtcp_serve.outputs.formats import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def complete_colormap(incomplete: str) -> list[str]:
    """Colour tables that begin with ``incomplete``."""
    from mtcp_serve.kinds.colormaps import colormap_names

    return [name for name in colormap_names() if name.startswith(incomplete)]


def _tasks(ctx: typer.Context) -> list[str]:
    """The tasks of ``--bundle``, or of the settings' bundles; none where they cannot be read."""
    from mtcp_serve.server.settings import Settings

    try:
        folders = ctx.params.get("bundle") or Settings().bundle
        manifests = [Bundle.open(folder).manifest for folder in folders]
    except (BundleError, ValueError):
        return []
    return list(dict.fromkeys(task.name for manifest in manifests for task in manifest.tasks))
