"""Whether the settings' addresses can be listened on, before the server starts."""

import os
import socket
from errno import EADDRNOTAVAIL

from mtcp_serve.errors import PortError
from mtcp_serve.server.settings import Settings


def check_ports(settings: Settings) -> None:
    """Listen for a moment where the server is to.

    Raises:
        PortError: the host is not an address of this machine, or a port is taken or not allowed.
    """
    for name, port in (("port", settings.port), ("grpc_port", settings.grpc_port)):
        if port:
            _check(settings.host, port, f"--{name.replace('_', '-')}")


def _check(host: str, port: int, option: str) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise PortError(f"the host {host!r} is not known ({_words(error)}); give another --host") from error
    faults = [_fault(family, address) for family, _, _, _, address in found]
    if all(faults):
        others = [fault for fault in faults if fault is not None]
    else:  # a name may have an address that this machine lacks, such as one of IPv6
        others = [fault for fault in faults if fault is not None and fault.errno != EADDRNOTAVAIL]
    for fault in others:
        wrong = "--host" if fault.errno == EADDRNOTAVAIL else option
        raise PortError(
            f"{host} cannot be listened on at port {port}: {_words(fault)}; give another {wrong}"
        ) from fault


def _fault(family: int, address: tuple[object, ...]) -> OSError | None:
    try:
        there = socket.socket(family)
    except OSError:
        return None  # the machine has no such protocol, and the server leaves it out
    with there:
        if os.name == "posix":  # as the server does: a port whose last connections are ending is free
            there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            there.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            there.bind(address)
        except OSError as error:
            return error
    return None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
