"""The key of a stream that a web page opens: a browser lets no page set a header there, but subprotocols.

A page offers two: `STREAM`, and `KEY` followed by its key in base64url without padding. The server takes the
first; the second is never named in an answer, and nothing stands in the address, which proxies log.
"""

import base64
import binascii
from typing import Final

from starlette.types import Scope

STREAM: Final = "mtcp"
"""Subprotocol of ``WS /stream``."""
KEY: Final = "mtcp.key."
"""What the subprotocol that holds a key begins with."""


def chosen(scope: Scope) -> str | None:
    """What is taken of the subprotocols that ``scope`` (of a WebSocket) offers; ``None`` for none."""
    return STREAM if STREAM in scope.get("subprotocols", ()) else None


def offered_key(scope: Scope) -> str | None:
    """The key among the subprotocols of ``scope``; ``None`` where there is none.

    One that cannot be decoded is given as it is, which no server has as a key.
    """
    offered: list[str] = scope.get("subprotocols", [])
    for name in offered:
        if name.startswith(KEY):
            text = name.removeprefix(KEY)
            try:
                return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return name
    return None
