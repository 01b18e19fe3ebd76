"""What a web address has: a picture, a video file, or a stream without an end."""

import errno
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Final
from urllib.parse import quote

from mtcp_serve.errors import PayloadTooLargeError
from mtcp_serve.inference.images import ImageLimits, is_image
from mtcp_serve.offline.live import SILENCE_S, LiveError
from mtcp_serve.offline.live.address import PORTS, Address
from mtcp_serve.offline.live.connect import connect
from mtcp_serve.utils.atomic import NoRoomError

MOST_BYTES: Final = 2 * 2**30
"""Of a video that is downloaded; a picture may have what `ImageLimits.max_bytes` says."""
MOST_S: Final = 600.0
"""Seconds that a download may take."""
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SAFE: Final = "%/:=&?~#+!$,;'@()*[]"  # what is left as it is in a path and query
_BLOCK: Final = 64 * 1024


class Body:
    """The body of a response, read as it comes; FFmpeg takes it for a file."""

    def __init__(self, response: HTTPResponse, connection: socket.socket) -> None:
        self._response = response
        self._connection = connection
        self._head = b""
        self.length = None if response.chunked else response.length
        """Bytes that are announced; ``None`` of a stream without an end."""
        self.is_multipart = response.headers.get_content_type() == "multipart/x-mixed-replace"
        """Whether it is JPEG frames one after the other, as many cameras send them."""

    def peek(self) -> bytes:
        """The first bytes (64 or less), which stay to be read."""
        while len(self._head) < 64 and (more := self._more(_BLOCK)):
            self._head += more
        return self._head[:64]

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; none at the end.

        Raises:
            LiveError: the connection is lost.
        """
        if self._head:
            found, self._head = self._head[:count], self._head[count:]
            return found
        return self._more(count)

    def close(self) -> None:
        """End the connection; a thread that waits for more of it gets none."""
        with suppress(OSError):  # the other side has ended it already
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)  # below TLS, which is not at rest
        self._response.close()
        self._connection.close()

    def _more(self, count: int) -> bytes:
        try:
            return self._response.read1(count)
        except (OSError, HTTPException, ValueError) as error:
            raise LiveError(f"the connection was lost ({error})") from error


@dataclass(frozen=True)
class Fetched:
    """What was found: one of a picture's bytes, a video file, and a stream."""

    picture: bytes | None = None
    video: Path | None = None
    stream: Body | None = None


@contextmanager
def fetch(address: Address, allow_private: bool, limits: ImageLimits, stop: Event) -> Iterator[Fetched]:
    """What ``address`` has, as long as the block lasts; a video is downloaded to a folder of its own.

    Raises:
        LiveError: it cannot be reached or may not be, answers with an error, or is too large or too slow.
        PayloadTooLargeError: a picture has more bytes than ``limits`` allow.
        NoRoomError: there is no room for the video.
    """
    body = _open(address, allow_private)
    try:
        if is_image(body.peek()):
            yield Fetched(picture=_picture(body, limits.max_bytes))
        elif body.length is None or body.is_multipart:
            yield Fetched(stream=body)
        else:
            with TemporaryDirectory() as folder:
                place = Path(folder) / address.file
                _download(body, place, address, stop)
                yield Fetched(video=place)
    finally:
        body.close()


def _open(address: Address, allow_private: bool) -> Body:
    """The body at ``address``, or where it redirects to: there the same rules hold."""
    start = address
    for _ in range(_MOST_REDIRECTS + 1):
        try:
            found = _ask(address, allow_private, address.login if address.host == start.host else None)
        except LiveError as error:
            if address is start:
                raise
            raise LiveError(f"it redirects to {address.shown}: {error}") from error
        if isinstance(found, Body):
            return found
        address = address.joined(found)
    raise LiveError(f"it redirects more than {_MOST_REDIRECTS} times")


def _ask(address: Address, allow_private: bool, login: tuple[str, str] | None) -> Body | str:
    """The body at ``address``, or the location that it redirects to."""
    if address.scheme not in ("http", "https"):
        raise LiveError("it is not of the web")
    connection = HTTPConnection(address.host, address.port, timeout=SILENCE_S)
    connection.sock = plain = connect(address, allow_private)
    headers = {"Host": _host(address), "Connection": "close", "Accept-Encoding": "identity"}
    if login is not None:
        headers["Authorization"] = f"Basic {b64encode(':'.join(login).encode()).decode()}"
    try:
        connection.request("GET", quote(address.path, safe=_SAFE), headers=headers)
        response = connection.getresponse()
    except (OSError, HTTPException, UnicodeError) as error:
        plain.close()
        raise LiveError(f"it does not answer: {error}") from error
    body = Body(response, plain)
    if response.status == 200:
        return body
    body.close()
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or location is None:
        raise LiveError(f"it answers {response.status} {response.reason}")
    return str(location)


def _host(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == PORTS[address.scheme] else f"{host}:{address.port}"


def _picture(body: Body, most: int) -> bytes:
    parts, count, end = [], 0, monotonic() + MOST_S
    while part := body.read(_BLOCK):
        parts.append(part)
        count += len(part)
        if count > most:
            raise PayloadTooLargeError(f"the image has more than {most} bytes, which is the limit")
        if monotonic() > end:
            raise LiveError(f"the download takes more than {MOST_S:.0f} s")
    return b"".join(parts)


def _download(body: Body, place: Path, address: Address, stop: Event) -> None:
    length = body.length or 0
    if length > MOST_BYTES:
        raise LiveError(f"it has {length} bytes, the limit of a video is {MOST_BYTES}")
    end, count = monotonic() + MOST_S, 0
    try:
        with place.open("xb") as file:
            while part := body.read(_BLOCK):
                count += file.write(part)
                if stop.is_set():
                    raise LiveError(f"interrupted after {count} of {length} bytes")
                if monotonic() > end:
                    raise LiveError(f"the download takes more than {MOST_S:.0f} s")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place.unlink(missing_ok=True)
            raise NoRoomError.at(place, length) from error
        raise LiveError(f"it cannot be kept in {place.parent}: {error.strerror}") from error
    if count < length:
        raise LiveError(f"the connection was lost after {count} of {length} bytes")
