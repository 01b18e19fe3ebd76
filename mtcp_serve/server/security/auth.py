"""Auth by API key: no route sees a request that lacks one."""

from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from mtcp_serve.errors import UnauthorizedError
from mtcp_serve.server.error_handlers import error_response
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.paths import STATIC, path_of
from mtcp_serve.server.security.api_keys import ApiKeys
from mtcp_serve.server.security.subprotocols import offered_key

OPEN = frozenset(
    {
        *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),  # probes carry no secrets
        *("/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/favicon.ico"),  # pages without data
    }
)
"""Paths that need no key, as `mtcp_serve.server.paths.path_of` gives them."""


def is_open(path: str) -> bool:
    """Whether ``path`` needs no key."""
    return path in OPEN or path.startswith(STATIC)


class RequireKey:
    """ASGI middleware that answers 401, before the body is read, to a request that lacks the key it needs.

    In the scope of others it leaves the label of their key, and ``check_key``, by which whoever keeps a
    connection finds out that the key has been taken out meanwhile: it raises `UnauthorizedError` then.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, metrics: Metrics) -> None:
        self.app = app
        self.keys = keys
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authorized request on, or reject it."""
        if scope["type"] == "lifespan" or is_open(path_of(scope)):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.get(b"x-api-key") or offered_key(scope)
        check = partial(self.keys.check, headers.get(b"authorization"), key)
        try:
            label = check()
        except UnauthorizedError as error:
            await error_response(error, scope)(scope, receive, send)
            return
        scope.setdefault("state", {}).update(key=label, check_key=check)
        self.metrics.key_requests.labels(label).inc()
        await self.app(scope, receive, send)
