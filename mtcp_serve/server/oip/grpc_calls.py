"""What wraps every gRPC call: an id, a key, room to read its message, a log line, metrics, typed failures."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import Any, Final

import grpc
import structlog

from mtcp_serve.errors import (
    DeadlineError,
    InternalError,
    InvalidBodyError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnauthorizedError,
    UnsupportedError,
    UploadTimeoutError,
)
from mtcp_serve.server.error_handlers import note
from mtcp_serve.server.middleware import REQUEST_ID, request_id
from mtcp_serve.server.security.api_keys import ApiKeys
from mtcp_serve.server.service import Service

Read = Callable[[], Awaitable[Any]]
"""Reads the one message of a call."""
PROBES: Final = ("ServerLive", "ServerReady")
"""Calls that need no key and no room, and are no news in the log."""
_CODES: tuple[tuple[type[RequestError], grpc.StatusCode], ...] = (
    (UnauthorizedError, grpc.StatusCode.UNAUTHENTICATED),
    (OverloadedError, grpc.StatusCode.UNAVAILABLE),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (UploadTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
    (InternalError, grpc.StatusCode.INTERNAL),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
)
_log = logging.getLogger("mtcp_serve")


class Calls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Interceptor around every call, of which ``calls`` are implemented; they just raise a `RequestError`.

    A message is received only once the call has a key and one of the places for request bodies, and within
    the time that a body may take.
    """

    def __init__(self, service: Service, keys: ApiKeys, calls: Collection[str]) -> None:
        self._service = service
        self._keys = keys
        self._calls = calls

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of a call, wrapped; a unary one reads its message as a stream of one when it may."""
        handler = await continuation(details)
        if handler is None:
            return None
        call = _Call(self._service, self._keys, details)

        async def unary(requests: AsyncIterator[Any], context: Any) -> Any:
            async def work() -> Any:
                call.check_implemented(self._calls)
                read = partial(call.read, requests)
                return await handler.unary_unary(read if call.infers else await call.read_now(read), context)

            return await call.run(context, work)

        async def stream(requests: AsyncIterator[Any], context: Any) -> None:
            async def work() -> None:
                call.check_implemented(self._calls)
                async for answer in handler.stream_stream(call.checked(requests), context):
                    await context.write(answer)

            await call.run(context, work)

        if handler.response_streaming:
            wrap, behaviour = grpc.stream_stream_rpc_method_handler, stream
        else:
            wrap, behaviour = grpc.stream_unary_rpc_method_handler, unary
        return wrap(behaviour, handler.request_deserializer, handler.response_serializer)


class _Call:
    """One call."""

    def __init__(self, service: Service, keys: ApiKeys, details: Any) -> None:
        self._service = service
        self._keys = keys
        self._path: str = details.method
        self._name = self._path.rpartition("/")[2]
        self.infers = self._name == "ModelInfer"
        """Whether `mtcp_serve.server.service.Service.handle` sees to this call, its message included."""
        self._metadata: dict[str, Any] = dict(details.invocation_metadata or ())
        self._id = request_id(self._text(REQUEST_ID.lower()) or "")
        self._facts: dict[str, object] = {}

    async def run(self, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        """The result of ``work``; its failure ends the call with a status."""
        start = time.perf_counter()
        status = grpc.StatusCode.OK
        trailing: tuple[tuple[str, str], ...] = ((REQUEST_ID.lower(), self._id),)
        context.set_trailing_metadata(trailing)
        with structlog.contextvars.bound_contextvars(request_id=self._id):
            try:
                self._authorize()
                return await work()
            except asyncio.CancelledError:
                status = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                if not isinstance(error, RequestError):
                    _log.exception("request %s failed", self._id)
                    error = InternalError("the server met an error")
                else:
                    note(error)
                status = next(code for kind, code in _CODES if isinstance(error, kind))
                self._facts["code"] = error.code
                self._service.metrics.errors.labels(error.code).inc()
                if error.retry_after is not None:
                    trailing += (("retry-after", str(error.retry_after)),)
                await context.abort(status, text(error), trailing)
            finally:
                self._account(status, time.perf_counter() - start)

    def check_implemented(self, calls: Collection[str]) -> None:
        """Refuse a call of the protocol that is not one of ``calls``.

        Raises:
            UnsupportedError: it is not.
        """
        if self._name not in calls:
            raise UnsupportedError(f"this server has no {self._name}")

    async def read(self, requests: AsyncIterator[Any]) -> Any:
        """The one message of the call.

        Raises:
            InvalidBodyError: there is none.
        """
        message = await anext(requests, None)
        if message is None and self._name not in PROBES:
            raise InvalidBodyError("the call has no message", "send one")
        return message

    async def read_now(self, read: Read) -> Any:
        """The message of a call that needs no slot; but for a probe, in one of the places for uploads.

        Raises:
            RequestError: there is no room for another, it came too slowly, or not at all.
        """
        if self._name in PROBES:
            return await read()
        async with self._service.uploads.reading():
            return await read()

    async def checked(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The messages of a stream, each of which may be the first since its key was taken out.

        Raises:
            UnauthorizedError: it has been.
        """
        async for request in requests:
            self._check_key()
            yield request

    def _authorize(self) -> None:
        if label := self._check_key():
            self._facts["key"] = label
            self._service.metrics.key_requests.labels(label).inc()

    def _check_key(self) -> str | None:
        """The label of the key; ``None`` where the call needs none."""
        if not self._keys or self._name in PROBES:
            return None
        return self._keys.check(self._text("authorization"), self._text("x-api-key"))

    def _text(self, name: str) -> str | None:
        value = self._metadata.get(name)
        return value if isinstance(value, str) else None

    def _account(self, status: grpc.StatusCode, seconds: float) -> None:
        metrics = self._service.metrics
        metrics.requests.labels("GRPC", self._path, status.name).inc()
        metrics.request_seconds.labels(self._path).observe(seconds)
        facts = {"method": "GRPC", "path": self._path, "status": status.name, "ms": round(1000 * seconds, 1)}
        level = logging.DEBUG if self._name in PROBES else logging.INFO
        _log.log(level, "request", extra=facts | self._facts)


def text(error: RequestError) -> str:
    """The message; a full queue is worded as Triton words it, which its clients know."""
    prefix = "Exceeds maximum queue size: " if isinstance(error, OverloadedError) else ""
    return f"{prefix}{error.line}"
