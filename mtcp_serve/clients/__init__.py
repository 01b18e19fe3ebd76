"""Clients for the gateway (HTTP) and for a Triton that serves a generated repository (gRPC).

``pip install 'mtcp-serve[clients]'`` brings what they need; ``clients/examples`` in a clone has examples.
"""

from mtcp_serve.prediction import Prediction

try:
    from mtcp_serve.clients._conversation import Outcome
    from mtcp_serve.clients._folders import images_in
    from mtcp_serve.clients.errors import (
        ClientError,
        DeadlineError,
        InvalidRequestError,
        NotFoundError,
        OverloadedError,
        ServerError,
        UnauthorizedError,
        UnavailableError,
    )
    from mtcp_serve.clients.http import AsyncGatewayClient, GatewayClient
    from mtcp_serve.clients.triton import TritonClient
    from mtcp_serve.clients.triton_async import AsyncTritonClient
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; pip install 'mtcp-serve[clients]' brings what the clients need", name=error.name
    ) from error

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
