"""What the commands share: options, settings, engines, and how they fail."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from mtcp_serve.errors import BundleError, BundleNotFoundError
from mtcp_serve.server.settings import Settings

if TYPE_CHECKING:
    from mtcp_serve.engines.base import Engine

SOME_FAILED = 1
NOTHING_DONE = 2
INTERRUPTED = 130
BUNDLE_HINT = "A bundle is a folder with manifest.json and model.onnx; pass its path, or set MTCP_BUNDLE."

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_SPELLED = {code: f"\\x{code:02x}" for code in _CONTROLS if chr(code) != "\n"}
ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)


def option(name: str, *flags: str) -> Any:
    """A command line option for the setting ``name``, with its description and default.

    Where the option is not called as the setting, the help names the environment variable.
    """
    field = Settings.model_fields[name]
    default = "the one in the package" if name == "bundle" else field.default
    if default in (None, (), ""):
        default = "none"
    elif isinstance(default, bool):
        default = "on" if default else "off"
    same = flags[0].split("/")[0] == "--" + name.replace("_", "-")
    variable = "" if same else f" In the environment: MTCP_{name.upper()}."
    return typer.Option(*flags, help=f"{field.description}{variable} Default: {default}.", show_default=False)


BundleOption = Annotated[list[Path] | None, option("bundle", "--bundle", "-b")]
EngineOption = Annotated[str | None, option("engine", "--engine")]
ProviderOption = Annotated[str | None, option("provider", "--provider")]
ThreadsOption = Annotated[int | None, option("threads", "--threads")]


def fail(message: str, code: int) -> NoReturn:
    """Print ``message`` as an error and end with the exit status ``code``."""
    ERRORS.print(f"[bold red]error:[/] {plain(message)}")
    raise typer.Exit(code)


def plain(text: object) -> str:
    """``text`` as rich prints it unchanged: brackets in it are no markup.

    Control characters, such as a file name may hold to command the terminal, are spelled out; newlines stay.
    """
    return escape(str(text).translate(_SPELLED))


def read_settings(**given: object) -> Settings:
    """The settings of the environment, with those options that were given."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        fail(faults, NOTHING_DONE)


def load(settings: Settings) -> "list[Engine]":
    """The engines of the settings' bundles; the import waits for it, so that ``--help`` does not."""
    from mtcp_serve.server.loading import load_engines

    try:
        return load_engines(settings)
    except BundleNotFoundError as error:
        fail(f"{error}\n{BUNDLE_HINT}", NOTHING_DONE)
    except BundleError as error:
        fail(str(error), NOTHING_DONE)
