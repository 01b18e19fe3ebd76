"""What wraps every request: an id, a log line, metrics, and an error response if all else fails."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPMethod
from urllib.parse import quote

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtcp_serve.errors import InternalError
from mtcp_serve.server.error_handlers import error_response
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.paths import path_of

REQUEST_ID = "X-Request-ID"
"""Header of the request's id: the client's own where it is short and plain, else a new one."""
DISCONNECTED = 499
"""Status that the log and the metrics give a request whose client did not wait for the response."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(HTTPMethod)
_log = logging.getLogger("mtcp_serve")


@dataclass
class _Response:
    """What is known of a response by now."""

    request_id: str
    send: Send
    status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (REQUEST_ID.lower().encode(), self.request_id.encode())]
            message = {**message, "headers": headers}
        await self.send(message)


class RequestContext:
    """ASGI middleware around all that answers: an id, a log line and metrics for each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            try:
                await self.app(scope, receive, send)
            except ClientDisconnect:
                self.metrics.disconnects.inc()
            return
        start = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        respond = _Response(request_id(given.decode("latin-1")), send)
        with structlog.contextvars.bound_contextvars(request_id=respond.request_id):
            try:
                await self.app(scope, receive, respond)
            except ClientDisconnect:
                respond.status = DISCONNECTED
                self.metrics.disconnects.inc()
            finally:
                self._account(scope, respond.status or DISCONNECTED, time.perf_counter() - start)

    def _account(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"  # a client may invent them
        self.metrics.requests.labels(method, path, status).inc()
        self.metrics.request_seconds.labels(path).observe(seconds)
        state = scope.get("state", {})
        facts = {
            "method": scope["method"],
            "path": quote(scope["path"]),  # no control characters in the log
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        if code := state.get("error_code"):
            facts["code"] = code
            self.metrics.errors.labels(code).inc()
        if key := state.get("key"):
            facts["key"] = key
        if stages := state.get("stages"):
            facts["stages"] = stages
        level = logging.DEBUG if is_probe(path_of(scope)) else logging.INFO
        _log.log(level, "the client disconnected" if status == DISCONNECTED else "request", extra=facts)


class EndConnections:
    """ASGI middleware by which connections end with their next response while the server is ``ending``.

    A balancer that knows of it sends it no new connection, but who holds one goes on sending requests on it.
    """

    def __init__(self, app: ASGIApp, ending: Callable[[], bool]) -> None:
        self.app = app
        self.ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start" and self.ending():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self.app(scope, receive, last if scope["type"] == "http" else send)


class AnswerHead:
    """ASGI middleware by which ``HEAD`` works wherever ``GET`` does: the same response without its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != HTTPMethod.HEAD:
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = HTTPMethod.GET.value
        try:
            await self.app(scope, receive, without_body)
        finally:
            scope["method"] = HTTPMethod.HEAD.value


class AnswerFailures:
    """Innermost ASGI middleware: what nobody caught becomes a 500, unless the response has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        begun = False

        async def respond(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, respond)
        except ClientDisconnect:
            raise
        except Exception:
            if begun or scope["type"] != "http":
                raise
            _log.exception("request %s failed", structlog.contextvars.get_contextvars().get("request_id"))
            await error_response(InternalError("the server met an error"), scope)(scope, receive, send)


def request_id(given: str) -> str:
    """The id of a request whose client gave it the id ``given``, or none (an empty one)."""
    return given if _PLAIN_ID.fullmatch(given) else uuid.uuid4().hex


def is_probe(path: str) -> bool:
    """Whether ``path`` is one that machines ask for every few seconds, which is no news."""
    return path.startswith(("/health/", "/v2/health/", "/metrics"))
