"""Flags under their former names, which keep working for one version."""

import typer
from typer.core import TyperCommand

RENAMED = {
    "--photos": "--images",
    "--half-weights": "--fp16-weights",
    "--half-threshold": "--fp16-threshold",
}
"""Former name -> name."""


class RenamedFlags(TyperCommand):
    """A command that takes the flags of `RENAMED` too, with a notice on standard error."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put the names of today in the place of former ones, ``--flag=value`` included."""
        renamed = []
        for position, argument in enumerate(args):
            flag, equals, value = argument.partition("=")
            if flag not in RENAMED or "--" in args[:position]:
                renamed.append(argument)
                continue
            typer.echo(
                f"notice: {flag} is now called {RENAMED[flag]}; the next version takes no other name",
                err=True,
            )
            renamed.append(f"{RENAMED[flag]}{equals}{value}")
        return super().parse_args(ctx, renamed)
