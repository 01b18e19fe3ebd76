"""The server's log: lines for people, or one JSON object per line, with the request's id in each.

Tracebacks are Python's plain ones: structlog's default shows every local variable, among them API keys, and a
deep one of a request takes so long to draw that the server stands still.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog

FIELDS = ("method", "path", "status", "ms", "code", "key", "stages", "frames")
"""What a record may carry beside its message (``extra=``)."""


def configure_logging(level: str, format: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send every log record of this process, uvicorn's and warnings too, to ``stream``, by default stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=FIELDS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=(stream or sys.stderr).isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
