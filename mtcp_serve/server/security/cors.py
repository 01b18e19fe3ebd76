"""Calls by pages of other origins (CORS): off unless origins are listed, and never with cookies."""

from typing import Any, Final

from mtcp_serve.server.oip.rest import HEADER_LENGTH

CORS: Final[dict[str, Any]] = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("Authorization", "X-API-Key", "X-Request-ID", HEADER_LENGTH),
    "expose_headers": (
        "Retry-After",
        "Server-Timing",
        "WWW-Authenticate",
        "X-Request-ID",
        HEADER_LENGTH,
    ),
    "allow_credentials": False,
}
"""Starlette's options: what such a page may send, and which headers of a response it may read."""
