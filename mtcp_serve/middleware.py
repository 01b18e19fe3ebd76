"""What wraps every request: an id, and an answer in the error shape whatever happens."""

import logging
import re
import uuid

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtcp_serve.errors import (
    InternalError,
    InvalidParameterError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
)

REQUEST_ID = "X-Request-ID"
"""Header of the request's id: the client's own where it is short and plain, else a new one."""
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_log = logging.getLogger("mtcp_serve")


class RequestContext:
    """Outermost ASGI middleware: adds the request id, and turns what nobody caught into a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode("latin-1")
        if not _PLAIN_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (REQUEST_ID.lower().encode(), request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            _log.info("request %s: the client hung up", request_id)
        except Exception:
            _log.exception("request %s failed", request_id)
            if started:
                raise
            await error_response(InternalError("the server met an error"))(scope, receive, send_with_id)


def error_response(error: RequestError) -> JSONResponse:
    """The answer for ``error``."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.close:
        headers["Connection"] = "close"
    return JSONResponse(error.body(), error.status, headers)


async def on_request_error(_: Request, error: Exception) -> JSONResponse:
    """Answer a `RequestError`; an internal one is logged as well."""
    assert isinstance(error, RequestError)
    if isinstance(error, InternalError):
        _log.error("%s", error.message)
    return error_response(error)


async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
    """Answer FastAPI's own parameter check in this package's shape."""
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(
        f"{'.'.join(str(part) for part in fault['loc'][1:]) or fault['loc'][0]}: {fault['msg']}"
        for fault in error.errors()
    )
    return error_response(InvalidParameterError(faults))


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer Starlette's own errors, such as an unknown path, in this package's shape."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == NotFoundError.status:
        response = error_response(NotFoundError(f"there is nothing at {path}"))
    elif error.status_code == MethodNotAllowedError.status:
        response = error_response(MethodNotAllowedError(f"{path} does not take {request.method}"))
    else:
        body = {"code": "http_error", "message": str(error.detail), "hint": "see /docs"}
        response = JSONResponse({"error": body}, error.status_code)
    response.headers.update(error.headers or {})
    return response
