"""What several paths share of the API docs."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Response
from pydantic import BaseModel

from mtcp_serve.errors import (
    DeadlineError,
    ImageTooLargeError,
    InternalError,
    InvalidImageError,
    InvalidParameterError,
    NotAcceptableError,
    NotReadyError,
    OverloadedError,
    RequestError,
    UnknownTaskError,
    UnsupportedMediaTypeError,
    UploadTimeoutError,
)
from mtcp_serve.outputs.formats import Writer
from mtcp_serve.outputs.schemas import ErrorOut
from mtcp_serve.server.request_body import FIELD
from mtcp_serve.server.routes.dependencies import given_once


def error_responses(*errors: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    """The part of the API docs that describes ``errors``, with an example of each."""
    found: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        summary = (error.__doc__ or "").partition("\n")[0]
        entry: dict[str, Any] = {
            "model": ErrorOut,
            "description": summary,
            "content": {"application/json": {"example": error(summary).body()}},
        }
        if error.retry_after is not None:
            entry["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}},
            }
        found[error.status] = entry
    return found


PREDICT_ERRORS = error_responses(
    InvalidImageError,
    UnknownTaskError,
    NotAcceptableError,
    UploadTimeoutError,
    ImageTooLargeError,
    UnsupportedMediaTypeError,
    InvalidParameterError,
    OverloadedError,
    InternalError,
    NotReadyError,
    DeadlineError,
)
"""What ``POST /predict`` and ``POST /predict/batch`` may answer beside 200."""
BINARY = {"schema": {"type": "string", "format": "binary"}}
"""Schema of a body of bytes."""
RESPONSE_HEADERS = {
    "Server-Timing": {"description": "Milliseconds per stage.", "schema": {"type": "string"}},
    "X-Request-ID": {"description": "Id of this request.", "schema": {"type": "string"}},
    "Vary": {"description": "Accept.", "schema": {"type": "string"}},
}


def _form_schema(images: dict[str, Any], parameters: type[BaseModel]) -> dict[str, Any]:
    """Schema of a form whose field ``image`` is ``images``, and whose others are ``parameters``."""
    return {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {FIELD: images, **parameters.model_json_schema()["properties"]},
            "additionalProperties": False,
        }
    }


def _query_parameters(parameters: Any) -> list[dict[str, Any]]:
    """Query parameters as FastAPI documents those that it reads itself."""

    def read(query: Any) -> None:
        """Never called."""

    read.__annotations__["query"] = Annotated[parameters, Query()]
    app = FastAPI()
    app.get("/")(read)
    found: list[dict[str, Any]] = app.openapi()["paths"]["/"]["get"]["parameters"]
    return found


def prediction_route(
    out: type[BaseModel],
    description: str,
    example: Any,
    formats: Mapping[str, type[Writer]],
    images: dict[str, Any],
    parameters: type[BaseModel],
    bodies: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The arguments of ``router.post`` for a path that takes images and answers in one of ``formats``.

    ``images`` is the schema of the form's field ``image``, ``parameters`` are its other fields; ``bodies``,
    by media type, are taken instead of a form. ``out``, ``description`` and ``example`` are of the response.
    """
    return {
        "response_class": Response,
        "dependencies": [Depends(given_once)],
        "responses": {
            200: {
                "model": out,
                "description": description,
                "content": {form.media_type: BINARY for form in formats.values()}
                | {"application/json": {"example": example}},
                "headers": RESPONSE_HEADERS,
            },
            **PREDICT_ERRORS,
        },
        "openapi_extra": {
            "parameters": _query_parameters(parameters),
            "requestBody": {
                "required": True,
                "content": {"multipart/form-data": _form_schema(images, parameters), **(bodies or {})},
            },
        },
    }
