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
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtcp_serve.errors import InternalError
from mtcp_serve.server.error_handlers import error_response
from mtcp_serve.server.metrics import Metrics
from mtcp_serve.server.paths import path_of

REQUEST_ID = "X-Request-ID"
"""Header of the request's id: the client's own where it is short and plain, else a new one."""
DISCONNECTED = 499
"""Status that the log and the metrics give a request whose client did not wait for the response."""
STREAM = "WS"
"""Method that the log and the metrics give a stream; its status is the code that it was closed with."""
ABNORMAL = 1006
"""Close code (RFC 6455) of a stream that ended without one."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({*HTTPMethod, STREAM})
_STATUSES = frozenset({*range(100, 600), *range(1000, 1016)})  # of HTTP, and close codes of RFC 6455
_HEADS = ("http.response.start", "websocket.http.response.start", "websocket.accept")
_log = logging.getLogger("mtcp_serve")


@dataclass
class _Exchange:
    """What is known by now of a request and its response, or of a stream."""

    request_id: str
    receive: Receive
    send: Send
    status: int | None = None
    """Of the response, or the code that a stream was closed with."""
    accepted: bool = False
    """Whether it is a stream, past its handshake."""
    frames: int = 0
    """Frames that came over it."""

    async def receiving(self) -> Message:
        message = await self.receive()
        if message["type"] == "websocket.receive":
            self.frames += message.get("bytes") is not None
        elif message["type"] == "websocket.disconnect" and self.accepted and self.status is None:
            self.status = int(message.get("code") or ABNORMAL)  # not a number that calls itself otherwise
        return message

    async def sending(self, message: Message) -> None:
        if message["type"] in _HEADS:
            self.accepted = message["type"] == "websocket.accept"
            self.status = message.get("status")
            headers = [*message.get("headers", ()), (REQUEST_ID.lower().encode(), self.request_id.encode())]
            message = {**message, "headers": headers}
        elif message["type"] == "websocket.close":
            self.status = message["code"] if self.accepted else 403  # which is what the client is answered
        await self.send(message)


class RequestContext:
    """ASGI middleware around all that answers: an id, a log line and metrics for each request and stream.

    ``route_of`` finds the route of a request that was refused on its way there.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, route_of: Callable[[Scope], BaseRoute | None]) -> None:
        self.app = app
        self.metrics = metrics
        self.route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or one stream from its handshake to its end."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        exchange = _Exchange(request_id(given.decode("latin-1")), receive, send)
        with structlog.contextvars.bound_contextvars(request_id=exchange.request_id):
            try:
                await self.app(scope, exchange.receiving, exchange.sending)
            except ClientDisconnect:
                if not exchange.accepted:
                    exchange.status = DISCONNECTED
                self.metrics.disconnects.inc()
            finally:
                self._account(scope, exchange, time.perf_counter() - start)

    def _account(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        state = scope.get("state", {})
        code = state.get("error_code")
        route = scope.get("route") or (self.route_of(scope) if code else None)
        path = getattr(route, "path", "other")
        method = scope.get("method", STREAM)
        status = exchange.status or (ABNORMAL if exchange.accepted else DISCONNECTED)
        self.metrics.requests.labels(
            method if method in _METHODS else "other", path, status if status in _STATUSES else "other"
        ).inc()  # a client may invent methods and close codes
        if not exchange.accepted:
            self.metrics.request_seconds.labels(path).observe(seconds)
        facts = {
            "method": method,
            "path": quote(scope["path"]),  # no control characters in the log
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        if code:
            facts["code"] = code
            self.metrics.errors.labels(code).inc()
        if key := state.get("key"):
            facts["key"] = key
        if stages := state.get("stages"):
            facts["stages"] = stages
        event = "the client disconnected" if status == DISCONNECTED else "request"
        if exchange.accepted:
            facts["frames"], event = exchange.frames, "stream"
        level = logging.DEBUG if is_probe(path_of(scope)) else logging.INFO
        _log.log(level, event, extra=facts)


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
