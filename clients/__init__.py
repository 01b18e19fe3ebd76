"""Clients for the gateway (HTTP) and for a Triton that serves a generated repository (gRPC).

``pip install 'mtcp-serve[clients]'`` brings what they need. Examples that run are in ``clients/examples``.
"""

from clients.answers import Answer
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
from clients.gateway import AsyncGatewayClient, GatewayClient
from clients.maps import Maps, Outcome
from clients.photos import photos_in
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
