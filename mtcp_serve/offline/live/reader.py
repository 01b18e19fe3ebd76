"""A camera or stream to upright RGB frames, of which the newest wins."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Final

import av
from av.container import InputContainer

from mtcp_serve.inference.images import ImageLimits
from mtcp_serve.offline.live import SILENCE_S, Live, LiveError
from mtcp_serve.offline.live.address import Address
from mtcp_serve.offline.live.fetch import Body
from mtcp_serve.offline.live.rtsp import OPTIONS, RtspRelay
from mtcp_serve.offline.video import VideoError
from mtcp_serve.offline.video.reader import CONTAINERS, Frame, VideoReader, words_of

_GLANCE_S: Final = 0.1  # how often who waits for a frame looks whether it is to stop
_JOIN_S: Final = 2.0
_LATE_S: Final = SILENCE_S  # that a stream may be behind this machine's clock


class LiveReader(VideoReader):
    """`VideoReader` for what comes as it happens: `frames` are the newest at the moment they are asked for.

    They are decoded in a thread. ``release`` ends the connection, so that the thread ends.
    """

    def __init__(
        self, container: InputContainer, limits: ImageLimits, live: Live, release: Callable[[], object]
    ) -> None:
        super().__init__(container, limits)
        self.live = live
        self._release = release
        self._thread: Thread | None = None
        self._changed = Condition()
        self._newest: Frame | None = None
        self._over = False
        self._error: BaseException | None = None
        self._shown_until = 0
        self.ended = False
        """Whether the stream came to its end, by itself."""
        self.dropped = 0
        """Frames that were replaced by a newer one before they were asked for."""
        self.damaged = 0
        """Damaged packets and frames, such as the first of a stream that was joined in the middle."""

    def close(self) -> None:
        """End the connection, the thread and the container."""
        with self._changed:
            self._over = True
        self._release()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            if self._thread.is_alive():  # it waits for a dead camera: a daemon, which is left to it
                return
        self._container.close()

    @property
    def frame_count(self) -> None:
        """Nobody knows."""

    @property
    def end(self) -> int:
        """When the last frame that was given ends; time begins with the first that was given."""
        return self._shown_until

    @end.setter
    def end(self, time: int) -> None:
        self._decoded_until = time

    def frames(self, every: int = 1, first: int = 0) -> Iterator[Frame]:
        """The newest of each ``every``-th frame, until the stream ends or `Live` says so.

        Raises:
            ImageTooLargeError: the frames grow beyond the limits on the way.
        """
        self._thread = Thread(target=self._fill, args=(every,), name="live", daemon=True)
        self._thread.start()
        taken, begin, began = 0, 0, 0.0
        while (frame := self._next()) is not None:
            if not taken:
                begin, began = frame.time, monotonic()
            time = frame.time - begin
            if taken and self._is_over(float(time * self.time_base), monotonic() - began):
                return
            self._shown_until = time + self._step
            yield replace(frame, time=time)
            taken += 1
            if taken == self.live.frames:
                return
        self.ended = not self.live.stop.is_set() and self.fault is None

    def _is_over(self, seconds: float, passed: float) -> bool:
        """Whether enough was seen: ``seconds`` by the time stamps, ``passed`` by this machine's clock."""
        most = self.live.seconds
        return most is not None and (seconds >= most or passed >= most + _LATE_S)

    def _next(self) -> Frame | None:
        """The newest frame; ``None`` at the end."""
        with self._changed:
            while self._newest is None and not self._over and not self.live.stop.is_set():
                self._changed.wait(_GLANCE_S)
            if self.live.stop.is_set():
                return None
            frame, self._newest = self._newest, None
            if frame is None and self._error is not None:
                raise self._error
            return frame

    def _fill(self, every: int) -> None:
        """Decode until nobody wants more."""
        try:
            for frame in super().frames(every):
                with self._changed:
                    if self._over:
                        break
                    self.dropped += self._newest is not None
                    self._newest = frame
                    self._changed.notify()
        except LiveError as error:
            self._lost(str(error))
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()

    def _note(self, what: str) -> None:
        self.damaged += 1

    def _lost(self, what: str) -> None:
        if self._over or self.live.stop.is_set() or self.fault is not None:
            return
        self.fault = f"the stream was lost {self._whereabouts(self._decoded_until, 1)}: {what}"


def open_camera(address: Address, limits: ImageLimits, live: Live) -> LiveReader:
    """The camera of this machine that ``address`` names.

    Raises:
        LiveError: there is none, it may not be used, or is in use.
    """
    format, name, there = _camera(address.camera)
    try:
        container = av.open(name, format=format, timeout=SILENCE_S)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise LiveError(_why(error, name, there)) from error
    return LiveReader(container, limits, live, lambda: None)


def open_rtsp(address: Address, limits: ImageLimits, live: Live) -> LiveReader:
    """The stream of an RTSP server.

    Raises:
        LiveError: it cannot be reached or may not be, or has nothing to show.
    """
    relay = RtspRelay(address, live.allow_private)
    try:
        container = av.open(relay.url, format="rtsp", options=OPTIONS, timeout=SILENCE_S)
        return LiveReader(container, limits, live, relay.close)
    except (av.FFmpegError, OSError, ValueError, VideoError) as error:
        relay.close()
        raise LiveError(relay.refusal or _words(error)) from error
    except BaseException:
        relay.close()
        raise


def open_body(address: Address, body: Body, limits: ImageLimits, live: Live) -> LiveReader:
    """The video that comes in the body of a web server's response.

    Raises:
        LiveError: it is not a video that can be read as it comes.
    """
    options = {"format_whitelist": f"{CONTAINERS},mpjpeg"}
    if body.is_multipart:
        options["use_wallclock_as_timestamps"] = "1"  # it has no time stamps of its own
    try:
        format = "mpjpeg" if body.is_multipart else None
        container = av.open(body, "r", format=format, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise LiveError(
            f"it is not a picture, nor a video that can be read as it comes ({_words(error)})"
        ) from error
    return LiveReader(container, limits, live, body.close)


def _camera(name: str) -> tuple[str, str, list[str]]:
    """FFmpeg's format for cameras, what it calls this one, and the files of those there are."""
    if sys.platform == "darwin":
        return "avfoundation", f"{name}:none", []
    if sys.platform == "win32":
        return "dshow", f"video={name}", []
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    return "v4l2", f"/dev/video{name}" if name.isdecimal() else name, there


def _why(error: Exception, name: str, there: list[str]) -> str:
    if isinstance(error, PermissionError):
        return f"no permission to use {name}; on Linux its group, often video, may"
    if isinstance(error, FileNotFoundError):
        return f"there is no camera {name}; this machine has {', '.join(there) or 'none'}"
    if isinstance(error, BlockingIOError) or getattr(error, "errno", None) == 16:  # EBUSY
        return f"{name} is in use by another program"
    return f"{name} cannot be used ({_words(error)})"


def _words(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, av.error.ExitError):
        return f"nothing came for {SILENCE_S:.0f} s"
    return words_of(error) if isinstance(error, av.FFmpegError | OSError) else str(error)


def say_end(reader: LiveReader) -> tuple[str, ...]:
    """What is to be said of a stream that was read."""
    notes = []
    if reader.dropped:
        notes.append(f"{reader.dropped} of {reader.decoded} frames were skipped for newer ones")
    if reader.damaged:
        notes.append(f"{reader.damaged} damaged packets or frames")
    return tuple(notes)
