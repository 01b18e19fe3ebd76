"""Connections to addresses that may be connected to, and to no others."""

import socket
import ssl
from ipaddress import ip_address

from mtcp_serve.offline.live import SILENCE_S, LiveError
from mtcp_serve.offline.live.address import Address


def resolve(address: Address, allow_private: bool) -> list[str]:
    """The numbers of the host, to connect to instead of its name, which may mean another one the next time.

    Raises:
        LiveError: there is no such host, or one of its numbers is not public and only those may be.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LiveError(f"the host {address.host} is not known ({reason})") from error
    numbers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for number in numbers:
        if not allow_private and not is_public(number):
            said = "" if number == address.host else f" is {number}, which"
            raise LiveError(
                f"{address.host}{said} is not a public address; --allow-private reads it all the same"
            )
    return numbers


def is_public(number: str) -> bool:
    """Whether an address of the Internet: not loopback, private, link-local, multicast or reserved."""
    found = ip_address(number.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (inner is None or is_public(str(inner)))


def connect(address: Address, allow_private: bool) -> socket.socket:
    """A connection, through TLS where the scheme says so.

    Raises:
        LiveError: it may not be connected to, does not answer, or has no certificate that is trusted.
    """
    errors = []
    for number in resolve(address, allow_private):
        try:
            plain = socket.create_connection((number, address.port), SILENCE_S)
        except OSError as error:
            errors.append(error.strerror or str(error))
            continue
        if address.scheme not in ("https", "rtsps"):
            return plain
        try:
            return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
        except OSError as error:
            plain.close()
            errors.append(getattr(error, "verify_message", None) or error.strerror or str(error))
    raise LiveError(f"it cannot be reached: {'; '.join(dict.fromkeys(errors))}")
