"""Clients for the gateway (HTTP) and for a Triton that serves a generated repository (gRPC).

``pip install '.[clients]'`` in a checkout brings what they need. ``clients/examples`` has examples that run.
"""

from clients._answers import Answer
from clients._maps import Maps, Outcome
from clients._photos import photos_in
from clients.errors import (
    ClientError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from clients.http import AsyncGatewayClient, GatewayClient
from clients.triton import TritonClient
from clients.triton_async import AsyncTritonClient

__all__ = [
    "Answer",
    "AsyncGatewayClient",
    "AsyncTritonClient",
    "ClientError",
    "DeadlineError",
    "GatewayClient",
    "InvalidRequestError",
    "Maps",
    "NotFoundError",
    "Outcome",
    "OverloadedError",
    "ServerError",
    "TritonClient",
    "UnauthorizedError",
    "UnavailableError",
    "photos_in",
]
