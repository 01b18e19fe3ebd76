"""``mtcp-serve serve``: an option for every setting, made of `mtcp_serve.server.settings.Settings`."""

import inspect
import logging
import os
from typing import Annotated, Any, Final, Literal, TextIO, get_args, get_origin

from mtcp_serve.cli.common import fail, flag, json_log, load, old_option, option, read_settings, say, take_old
from mtcp_serve.errors import PortError, SettingsError
from mtcp_serve.server.listening import check_ports
from mtcp_serve.server.renamed import RENAMED
from mtcp_serve.server.settings import Settings
from mtcp_serve.server.unknown_variables import unknown_variables
from mtcp_serve.utils.exit_status import ExitStatus

PANELS: Final = {
    "Models": (
        "bundle",
        "engine",
        "provider",
        "precision",
        "intra_op_threads",
        "streams",
        "triton",
        "triton_ca",
    ),
    "Address": ("host", "port", "root_path", "grpc_port"),
    "Who may ask": (
        "api_keys_file",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "cors_origin",
    ),
    "Scheduling": (
        "max_batch_size",
        "max_queue_delay_ms",
        "concurrency",
        "queue_size",
        "deadline_s",
        "max_concurrent_uploads",
        "upload_s",
    ),
    "Shutdown": ("shutdown_delay_s", "drain_s"),
    "Limits of images and bodies": (
        "max_bytes",
        "max_pixels",
        "max_side",
        "decode_s",
        "max_batch_images",
        "max_batch_bytes",
        "batch_answer",
        "max_form_fields",
    ),
    "Limits of connections": (
        "max_header_bytes",
        "header_s",
        "keep_alive_s",
        "max_discarded_bytes",
        "send_s",
        "grpc_keepalive_s",
        "grpc_keepalive_timeout_s",
    ),
    "Logs and traces": ("log_level", "log_format", "traces"),
}
"""The settings that are options, as the help groups them; the others are secrets, of the environment only."""
_ALIASES: Final = {"bundle": ("-b",)}
_OLD: Final = {old: (flag(old), new) for old, new in RENAMED.items()} | {
    "micro_batch_delay_ms": ("--micro-batch-delay", "max_queue_delay_ms"),
    "deadline": ("--deadline", "deadline_s"),
    "upload_time": ("--upload-time", "upload_s"),
}
"""Options of the version before, by parameter: how they are spelled, and their settings."""


def serve(**given: Any) -> None:
    """Serve bundles over HTTP until interrupted. SIGTERM finishes what was accepted, SIGHUP reloads.

    Every option is an environment variable too: MTCP_PORT is --port.
    """
    stream = _json_from_the_start(given.get("log_format"))
    take_old(given, _OLD)
    for notice in unknown_variables(os.environ):
        say(notice, logging.WARNING)
    settings = read_settings(**given)
    engines = load(settings)
    from mtcp_serve.inference.registry import describe_engine
    from mtcp_serve.server.app import create_app
    from mtcp_serve.server.logging import configure_logging
    from mtcp_serve.server.process import Server

    for loaded in engines:
        say(describe_engine(loaded))
    configure_logging(settings.log_level, settings.log_format, stream)
    try:
        server = Server(create_app(settings, engines), settings)
        check_ports(settings)
    except ImportError as error:
        fail(f"{error}; pip install 'mtcp-serve[otel,triton]' brings what is missing", ExitStatus.CANNOT_HERE)
    except PortError as error:
        fail(str(error), ExitStatus.CANNOT_HERE)
    except SettingsError as error:
        fail(str(error), ExitStatus.NOTHING_DONE)
    if stream is None and hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on
        from mtcp_serve.server.native_output import capture_native_output

        configure_logging(settings.log_level, settings.log_format, capture_native_output())
    server.run()


def _json_from_the_start(log_format: str | None) -> TextIO | None:
    """Set up a JSON log, if it is to be one, before anything is said; the real stderr then."""
    if (log_format or os.environ.get("MTCP_LOG_FORMAT")) != "json":
        return None
    from mtcp_serve.server.logging import configure_logging
    from mtcp_serve.server.native_output import capture_native_output

    stream = capture_native_output()
    configure_logging("info", "json", stream)
    json_log.on = True
    return stream


def _annotation(name: str, *declared: Any) -> Any:
    """The type of an option for the setting ``name``: a list where several may be given."""
    kind: Any = Settings.model_fields[name].annotation
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    elif get_origin(kind) is Literal:
        kind = str  # the settings say what it may be
    return Annotated[kind | None, *declared]


def _parameters() -> list[inspect.Parameter]:
    """An option for every setting of `PANELS`, and the old ones."""
    options = {
        name: _annotation(name, option(name, *_ALIASES.get(name, ()), panel=panel))
        for panel, names in PANELS.items()
        for name in names
    }
    for old, (spelled, new) in _OLD.items():
        options[old] = _annotation(new, old_option(spelled))
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in options.items()
    ]


def _give_options() -> None:
    """Give `serve` its options, in the signature, where typer looks for them."""
    parameters = _parameters()
    serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {each.name: each.annotation for each in parameters}


_give_options()
