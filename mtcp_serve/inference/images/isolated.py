"""Decoding in another process, for formats whose work nothing tells before it is done.

A few frames of AVIF or HEIC may take hours, and a thread cannot be ended; a process can. Processes are
started when they are needed, wait for more work afterwards, and end with this one. The other side is
`mtcp_serve.inference.images.worker`.
"""

import atexit
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from threading import Event, Lock, Timer
from typing import IO, Any, Final

from PIL import Image

from mtcp_serve.errors import ImageTooLargeError, InternalError, InvalidImageError, RequestError
from mtcp_serve.inference.images.decoded import DecodedImage, ImageInfo
from mtcp_serve.inference.images.limits import ImageLimits

_ERRORS: Final[dict[str, type[RequestError]]] = {
    error.__name__: error for error in (ImageTooLargeError, InvalidImageError)
}
_START_S: Final = 60.0
_LENGTHS: Final = struct.Struct(">QQ")


def decode(data: bytes, limits: ImageLimits, enough: int | None) -> DecodedImage:
    """`mtcp_serve.inference.images.decode`, in another process.

    Raises:
        ImageTooLargeError: it took longer than ``limits.max_seconds``, and was ended.
        RequestError: what `mtcp_serve.inference.images.decode` raises.
    """
    reply, pixels = _ask({"task": "decode", "limits": asdict(limits), "enough": enough}, data, limits)
    info = reply["info"]
    focal = info.pop("focal")
    image = Image.frombytes("RGB", tuple(reply["size"]), pixels)
    return DecodedImage(image, ImageInfo(**info, focal=focal and (focal[0], focal[1])))


def measure(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """`mtcp_serve.inference.images.measure`, in another process.

    Raises:
        RequestError: as `decode`.
    """
    reply, _ = _ask({"task": "measure", "limits": asdict(limits)}, data, limits)
    width, height = reply["size"]
    return width, height


def send(pipe: IO[bytes], header: Mapping[str, Any], body: bytes) -> None:
    """Write a message."""
    packed = json.dumps(header).encode()
    pipe.write(_LENGTHS.pack(len(packed), len(body)))
    pipe.write(packed)
    pipe.write(body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read a message.

    Raises:
        EOFError: the other side has ended.
    """
    lengths = pipe.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    packed, body = _LENGTHS.unpack(lengths)
    header: dict[str, Any] = json.loads(pipe.read(packed))
    content = pipe.read(body)
    if len(content) < body:
        raise EOFError
    return header, content


class _Worker:
    """A process that decodes one image after another.

    Raises:
        InternalError: it does not start.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mtcp_serve.inference.images.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            self._exchange(None, _START_S)  # it says that it is there
        except (EOFError, TimeoutError) as error:
            self.end()
            raise InternalError("the process that decodes AVIF and HEIC does not start") from error

    def ask(self, header: Mapping[str, Any], body: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Send a message and return the reply to it.

        Raises:
            ImageTooLargeError: it took longer than ``seconds``.
            InvalidImageError: the process ended by itself.
        """
        try:
            return self._exchange((header, body), seconds)
        except TimeoutError as error:
            raise ImageTooLargeError(
                f"decoding the image took longer than {seconds:g} s",
                "scale the image down, or save it as JPEG",
            ) from error
        except EOFError as error:
            raise InvalidImageError("the image is damaged: its decoder broke down") from error

    def _exchange(
        self, message: tuple[Mapping[str, Any], bytes] | None, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Send ``message`` if there is one, and receive one.

        Raises:
            TimeoutError: it took longer than ``seconds``; the process was ended.
            EOFError: the process ended by itself.
        """
        if self.process.stdin is None or self.process.stdout is None:
            raise EOFError
        late = Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = Timer(seconds, stop)
        timer.start()
        try:
            if message is not None:
                send(self.process.stdin, *message)
            return receive(self.process.stdout)
        except (EOFError, OSError) as error:
            raise (TimeoutError if late.is_set() else EOFError) from error
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # what could not be sent


_idle: list[_Worker] = []
_lock = Lock()


def _ask(header: Mapping[str, Any], body: bytes, limits: ImageLimits) -> tuple[dict[str, Any], bytes]:
    """The reply of an idle process, or of a new one."""
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is not None and worker.process.poll() is not None:
        worker.end()  # it broke down while it waited
        worker = None
    if worker is None:
        worker = _Worker()
    try:
        reply, content = worker.ask(header, body, limits.max_seconds)
    except BaseException:
        worker.end()
        raise
    with _lock:
        keep = len(_idle) < (os.cpu_count() or 1)
        if keep:
            _idle.append(worker)
    if not keep:
        worker.end()
    if "memory" in reply:
        raise MemoryError
    if "error" in reply:
        name, message, hint = reply["error"]
        raise _ERRORS[name](message, hint)
    return reply, content


@atexit.register
def close() -> None:
    """End the processes that wait for work."""
    with _lock:
        workers = _idle.copy()
        _idle.clear()
    for worker in workers:
        worker.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's
