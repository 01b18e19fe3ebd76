"""Clients for the gateway (HTTP) and for a Triton that serves a generated repository (gRPC).

``pip install '.[clients]'`` in a checkout brings what they need. ``clients/examples`` has examples that run.
"""

from clients._conversation import Outcome
from clients._folders import images_in
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
from mtcp_serve.prediction import Prediction

__all__ = [
    "AsyncGatewayClient",
    "AsyncTritonClient",
    "ClientError",
    "DeadlineError",
    "GatewayClient",
    "InvalidRequestError",
    "NotFoundError",
    "Outcome",
    "OverloadedError",
    "Prediction",
    "ServerError",
    "TritonClient",
    "UnauthorizedError",
    "UnavailableError",
    "images_in",
]
