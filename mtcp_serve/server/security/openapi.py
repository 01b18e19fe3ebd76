"""What the API docs say of API keys, where the server asks for them."""

from collections.abc import Callable
from typing import Any

from mtcp_serve.errors import UnauthorizedError
from mtcp_serve.server.security.auth import is_open

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of this server."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
}


def describe_keys(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI document that ``make`` gives, and how keys are sent, which paths need one, their 401."""
    document = make()
    document["components"]["securitySchemes"] = _SCHEMES
    summary = (UnauthorizedError.__doc__ or "").partition("\n")[0]
    for path, operations in document["paths"].items():
        if is_open(path):
            continue
        error = UnauthorizedError("the request has no API key")
        example: dict[str, Any] = {"error": error.line} if path.startswith("/v2") else error.body()
        schema = "ProtocolError" if path.startswith("/v2") else "ErrorOut"
        for operation in operations.values():
            operation["security"] = [{name: []} for name in _SCHEMES]
            operation["responses"]["401"] = {
                "description": summary,
                "headers": {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{schema}"},
                        "example": example,
                    }
                },
            }
    return document
