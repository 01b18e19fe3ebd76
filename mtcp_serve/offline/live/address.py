"""What is named instead of a file: ``camera:0``, ``rtsp://...``, ``https://...``."""

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from mtcp_serve.offline.live import LiveError

PORTS: Final = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
"""The schemes that are read, and the port of each."""
_CAMERA: Final = "camera"
_NAMES_ONE: Final = re.compile(r"camera:|[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Address:
    """A camera or the address of a picture, video or stream.

    Raises:
        LiveError: it is none that is read.
    """

    text: str
    """As it was given, secrets included."""

    def __post_init__(self) -> None:
        if self.is_camera:
            if not self.camera:
                raise LiveError("camera: needs the number of the camera: camera:0 is the first")
            return
        if self.scheme not in PORTS:
            raise LiveError(f"{self.scheme}: addresses are not read; those of {', '.join(PORTS)} are")
        try:
            port = self.parts.port
        except ValueError as error:
            raise LiveError(f"{self.scheme}: address: {error}") from error
        if not self.host or port == 0:
            raise LiveError(f"{self.shown} has no host, or no port that can be")

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether ``text`` is meant for an address and not for a file."""
        return bool(_NAMES_ONE.match(text))

    @property
    def is_camera(self) -> bool:
        """Whether it is a camera of this machine."""
        return self.text.startswith(f"{_CAMERA}:") and not self.text.startswith(f"{_CAMERA}://")

    @property
    def camera(self) -> str:
        """The camera's number, or its name."""
        return self.text.partition(":")[2]

    @property
    def parts(self) -> SplitResult:
        """The parts of the address."""
        return urlsplit(self.text)

    @property
    def scheme(self) -> str:
        """``http``, ``https``, ``rtsp`` or ``rtsps``; of a camera its own."""
        return self.text.partition(":")[0].lower()

    @property
    def host(self) -> str:
        """The host's name or number."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        return self.parts.port or PORTS[self.scheme]

    @property
    def path(self) -> str:
        """The path, and the query after it."""
        parts = self.parts
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def login(self) -> tuple[str, str] | None:
        """The user and password in the address."""
        parts = self.parts
        return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))

    @property
    def shown(self) -> str:
        """For messages and results: without password and query, which may be secrets."""
        if self.is_camera:
            return self.text
        port = "" if self.parts.port is None else f":{self.parts.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}{self.parts.path}"

    @property
    def stem(self) -> str:
        """What to call its results."""
        if self.is_camera:
            return _plain(f"{_CAMERA}-{self.camera}") or _CAMERA
        name = self._last
        return _plain(name.rpartition(".")[0]) or name or self._of_host

    @property
    def file(self) -> str:
        """The last part of the path, or else the host."""
        return self._last or self._of_host

    @property
    def _last(self) -> str:
        return _plain(unquote(self.parts.path.rstrip("/").rpartition("/")[2]))

    @property
    def _of_host(self) -> str:
        return _plain(self.host) or "stream"

    def joined(self, location: str) -> Self:
        """The address that ``location`` names, seen from this one."""
        return type(self)(urljoin(self.text, location))


def _plain(name: str) -> str:
    """``name`` as a file may be called anywhere, which may be nothing."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100]
