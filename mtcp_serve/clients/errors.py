"""Every error that the clients raise on purpose, whichever server they talk to.

Tree of classes::

    ClientError
    ├── UnavailableError        no server answers, or it is not ready
    │   └── OverloadedError     its queue is full
    ├── DeadlineError           the answer was not there in time
    ├── UnauthorizedError       the server wants an API key, or knows none like the one sent
    ├── NotFoundError           no such model, version or task, or it is not loaded
    ├── InvalidRequestError     the image or a parameter cannot be used; sending it again will not help
    └── ServerError             the server failed, or answered what this client cannot read
"""


class ClientError(Exception):
    """A request was not answered with maps.

    ``code`` is the server's own name of the error (gRPC status, or the gateway's code); ``hint`` says what to
    do, where the server does; ``retry_after`` (seconds) when to come again.
    """

    def __init__(
        self, message: str, *, code: str = "", hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.code = code
        self.hint = hint
        self.retry_after = retry_after


class UnavailableError(ClientError):
    """No server answers at this address, or it is not ready."""


class OverloadedError(UnavailableError):
    """The server's queue is full."""


class DeadlineError(ClientError):
    """The answer was not there in time."""


class UnauthorizedError(ClientError):
    """The server wants an API key, and got none or a wrong one."""


class NotFoundError(ClientError):
    """There is no such model, version or task, or it is not loaded."""


class InvalidRequestError(ClientError):
    """The image or a parameter cannot be used."""


class ServerError(ClientError):
    """The server failed, or answered what this client cannot read."""
