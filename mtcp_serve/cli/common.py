"""What the commands share: options, settings, engines, and how they fail."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from mtcp_serve.errors import BundleError, BundleNotFoundError, EngineUnavailableError
from mtcp_serve.server.renamed import RenamedWarning, renaming
from mtcp_serve.server.settings import Settings
from mtcp_serve.utils.exit_status import ExitStatus
from mtcp_serve.utils.faults import faults_of

if TYPE_CHECKING:
    from mtcp_serve.engines.base import Engine

BUNDLE_HINT = "A bundle is a folder with manifest.json and model.onnx; pass its path, or set MTCP_BUNDLE."

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_SPELLED = {code: f"\\x{code:02x}" for code in _CONTROLS if chr(code) != "\n"}
ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)


def option(name: str, *flags: str, panel: str | None = None) -> Any:
    """A command line option for the setting ``name``, with its description and default.

    It is called as the setting; ``flags`` are further names. In the help it stands in ``panel``.
    """
    field = Settings.model_fields[name]
    default = "the one in the package" if name == "bundle" else field.default
    if default in (None, (), ""):
        default = "none"
    elif isinstance(default, bool):
        default = "on" if default else "off"
    return typer.Option(
        flag(name, switch=field.annotation is bool),
        *flags,
        help=f"{field.description} Default: {default}.",
        show_default=False,
        rich_help_panel=panel,
    )


def flag(name: str, switch: bool = False) -> str:
    """The option of the setting ``name``; a switch has one to turn it off as well."""
    plain = name.replace("_", "-")
    return f"--{plain}/--no-{plain}" if switch else f"--{plain}"


def old_option(*flags: str) -> Any:
    """An option of the version before, which works and is not in the help."""
    return typer.Option(*flags, hidden=True)


BundleOption = Annotated[list[Path] | None, option("bundle", "-b")]
EngineOption = Annotated[str | None, option("engine")]
ProviderOption = Annotated[str | None, option("provider")]
PrecisionOption = Annotated[str | None, option("precision")]
StreamsOption = Annotated[int | None, option("streams")]
ThreadsOption = Annotated[int | None, option("intra_op_threads")]
OldThreadsOption = Annotated[int | None, old_option("--threads")]
OLD_THREADS: Final = {"threads": ("--threads", "intra_op_threads")}


def fail(message: str, status: ExitStatus) -> NoReturn:
    """Say ``message`` as an error and end with ``status``."""
    say(message, logging.ERROR)
    raise typer.Exit(status)


def plain(text: object) -> str:
    """``text`` as rich prints it unchanged: brackets in it are no markup.

    Control characters, such as a file name may hold to command the terminal, are spelled out; newlines stay.
    """
    return escape(str(text).translate(_SPELLED))


def take_old(given: dict[str, Any], old: Mapping[str, tuple[str, str]]) -> None:
    """Move what was given by an old option to the setting that it has become, and say so.

    ``old`` has, by the parameter of the command, the option and the setting.
    """
    for parameter, (spelled, name) in old.items():
        value = given.pop(parameter, None)
        if value is None:
            continue
        if given.get(name) is not None:
            fail(
                f"{spelled} is the old name of {flag(name)}; give {flag(name)} only", ExitStatus.NOTHING_DONE
            )
        given[name] = value
        say(renaming(spelled, flag(name)), logging.WARNING)


def read_settings(**given: Any) -> Settings:
    """The settings of the environment, with those options that were given; old variables are told of."""
    known = {name: value for name, value in given.items() if value is not None}
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", RenamedWarning)
        try:
            return Settings(**known)
        except ValidationError as error:
            fail(faults_of(error.errors()), ExitStatus.NOTHING_DONE)
        finally:
            for warning in notices:
                say(str(warning.message), logging.WARNING)


_PREFIXES: Final = {logging.ERROR: "[bold red]error:[/] ", logging.WARNING: "[yellow]notice:[/] "}


@dataclass
class _JsonLog:
    """Whether the log is set up as JSON, and what is said belongs into it."""

    on: bool = False


json_log: Final = _JsonLog()


def say(text: str, level: int = logging.INFO) -> None:
    """Print ``text`` for people, or log it where the log is JSON: then every line is."""
    if json_log.on:
        logging.getLogger("mtcp_serve").log(level, "%s", text)
    else:
        ERRORS.print(f"{_PREFIXES.get(level, '')}{plain(text)}")


def load(settings: Settings) -> "list[Engine]":
    """The engines of the settings' bundles; the import waits for it, so that ``--help`` does not."""
    from mtcp_serve.server.loading import load_engines

    try:
        return load_engines(settings)
    except BundleNotFoundError as error:
        fail(f"{error}\n{BUNDLE_HINT}", ExitStatus.NOTHING_DONE)
    except EngineUnavailableError as error:
        fail(str(error), ExitStatus.CANNOT_HERE)
    except BundleError as error:
        fail(str(error), ExitStatus.NOTHING_DONE)
