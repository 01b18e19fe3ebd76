"""The command line: ``mtcp-serve serve | predict | models | engines | check``.

Exit statuses (`mtcp_serve.utils.exit_status`): 0 all done; 1 some images failed and the others are done, a
video was damaged, the disk was full, or a check failed; 2 nothing was done, because of a wrong option,
setting, input or bundle; 3 this machine cannot, for instance because the port is taken; 130 interrupted.
After 1 for want of room and after 130 the same ``predict`` command goes on where it stopped.
"""

import warnings
from typing import Annotated

import typer

from mtcp_serve._version import __version__
from mtcp_serve.cli import check, engines, models, predict, serve

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One image, one request, five maps. Settings may be environment variables too: MTCP_PORT is --port.",
)
for command in (serve.serve, predict.predict, models.models, engines.engines, check.check):
    cli.command()(command)


def main() -> None:
    """Entry point of ``mtcp-serve``."""
    # Pillow warns of odd metadata in images: that is the sender's affair, and would fill the operator's log.
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    cli()


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mtcp-serve {__version__}")
        raise typer.Exit


@cli.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
