"""What every client is given, checked before it connects."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from mtcp_serve.clients.errors import InvalidRequestError
from mtcp_serve.errors import RequestError

_KEY = re.compile(r"[!-~]+")


def check_deadline(seconds: float) -> float:
    """``seconds``, a time that ends.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"deadline_s is {seconds}, it must be a positive number of seconds")
    return seconds


def bearer(api_key: str) -> str:
    """The value of the header ``Authorization`` for ``api_key``.

    Raises:
        ValueError: a header cannot carry it; the message does not show it.
    """
    if not _KEY.fullmatch(api_key):
        raise ValueError(
            "the api_key is empty or has a space, a line end or another character that no key has; "
            "of one that was read from a file take .strip()"
        )
    return f"Bearer {api_key}"


def check_authorities(authorities: str | PathLike[str], tls: bool, scheme: str) -> None:
    """Refuse authorities that cannot be read, or that nothing would be compared with.

    Raises:
        ValueError: the address is without TLS, which begins with ``scheme``.
        OSError: the file cannot be read; the message names it.
    """
    if not tls:
        raise ValueError(f"authorities are for TLS, where the address begins with {scheme}")
    with Path(authorities).open("rb") as file:
        file.read(1)


@contextmanager
def refusals() -> Iterator[None]:
    """What is refused here as a server would refuse it.

    Raises:
        InvalidRequestError: for every `RequestError`.
    """
    try:
        yield
    except RequestError as error:
        raise InvalidRequestError(error.message, hint=error.hint) from error
