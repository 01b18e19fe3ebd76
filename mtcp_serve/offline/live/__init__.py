"""Inputs that are not files: a camera (``camera:0``), a stream (``rtsp://...``), or what a web address has.

They are named on the command line only. Nothing but public addresses is connected to unless that is allowed,
whatever a name resolves to or a server redirects to; FFmpeg itself never connects to the network
(`mtcp_serve.offline.live.rtsp`). A live input is read in a thread of its own, and the newest frame wins:
those that come while one is worked on are dropped but for the last, so that results do not fall behind.
"""

from dataclasses import dataclass, field
from threading import Event
from typing import Final

from mtcp_serve.errors import MtcpServeError

SILENCE_S: Final = 10.0
"""Seconds without a byte after which a connection counts as lost."""


class LiveError(MtcpServeError):
    """A camera, stream or address cannot be read, or may not be."""


@dataclass(frozen=True)
class Live:
    """How cameras, streams and addresses are read."""

    allow_private: bool = False
    """Connect to loopback, private and link-local addresses too."""
    frames: int | None = None
    """End after so many frames were taken."""
    seconds: float | None = None
    """End after so many seconds of the stream, or soon after so many by this machine's clock."""
    stop: Event = field(default_factory=Event)
    """Set to end: what was written until then is made whole."""
