"""Errors as responses: one shape, ``{"error": {"code", "message", "hint"}}``, whoever raised them."""

import logging

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from mtcp_serve.errors import (
    InternalError,
    InvalidParameterError,
    MethodNotAllowedError,
    NotFoundError,
    RequestError,
)
from mtcp_serve.server.paths import path_of
from mtcp_serve.utils.faults import faults_of

_log = logging.getLogger("mtcp_serve")


def error_response(error: RequestError, scope: Scope) -> JSONResponse:
    """The response for ``error``; its code is noted in ``scope`` for the log and the metrics.

    A client that asked whether to send the body (``Expect``) has not sent it: its connection ends, else the
    next request on it would be taken for that body.
    """
    scope.setdefault("state", {})["error_code"] = error.code
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.close or any(name == b"expect" for name, _ in scope["headers"]):
        headers["Connection"] = "close"
    if error.challenge is not None:
        headers["WWW-Authenticate"] = error.challenge
    body: object = error.body()
    if path_of(scope).startswith("/v2"):  # the Open Inference Protocol wants a string
        body = {"error": error.line}
    return JSONResponse(body, error.status, headers)


def note(error: RequestError) -> None:
    """Log what an internal error says: its client is told to ask whoever runs the server."""
    if isinstance(error, InternalError):
        _log.error("%s", error.message)


async def on_request_error(request: Request, error: Exception) -> JSONResponse:
    """Answer a `RequestError`; an internal one is logged as well."""
    assert isinstance(error, RequestError)
    note(error)
    return error_response(error, request.scope)


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Answer FastAPI's own parameter check in this package's shape."""
    assert isinstance(error, RequestValidationError)
    return error_response(InvalidParameterError(faults_of(error.errors(), skip=1)), request.scope)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer Starlette's own errors, such as an unknown path, in this package's shape."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == NotFoundError.status:
        response = error_response(NotFoundError(f"there is nothing at {path}"), request.scope)
    elif error.status_code == MethodNotAllowedError.status:
        response = error_response(
            MethodNotAllowedError(f"{path} does not take {request.method}"), request.scope
        )
    else:
        body = {"code": "http_error", "message": str(error.detail), "hint": "see /docs"}
        response = JSONResponse({"error": body}, error.status_code)
    response.headers.update(error.headers or {})
    return response
