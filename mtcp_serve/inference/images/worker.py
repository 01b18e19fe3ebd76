"""The process that `mtcp_serve.inference.images.isolated` talks to: it decodes one image after another."""

import contextlib
import signal
import sys
from dataclasses import asdict
from typing import Any, Final

from mtcp_serve.errors import RequestError
from mtcp_serve.inference.images.isolated import receive, send
from mtcp_serve.inference.images.limits import ImageLimits
from mtcp_serve.inference.images.reader import decode_here, measure_here

BASE_BYTES: Final = 2**30
BYTES_PER_PIXEL: Final = 64
"""Address space of the process: so many bytes for each pixel of the limits, beside `BASE_BYTES`."""


def main() -> None:
    """Answer until the other side ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt of the terminal is the parent's to handle
    with contextlib.suppress(EOFError, BrokenPipeError):  # that end
        send(sys.stdout.buffer, {"ready": True}, b"")
        while True:
            header, data = receive(sys.stdin.buffer)
            send(sys.stdout.buffer, *_answer(header, data))


def _answer(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    limits = ImageLimits(**header["limits"])
    try:
        _bound_memory(limits)
        if header["task"] == "measure":
            return {"size": measure_here(data, limits)}, b""
        image = decode_here(data, limits, header["enough"])
        return {"size": image.image.size, "info": asdict(image.info)}, image.image.tobytes()
    except MemoryError:
        return {"memory": True}, b""
    except RequestError as error:
        return {"error": [type(error).__name__, error.message, error.hint]}, b""


def _bound_memory(limits: ImageLimits) -> None:
    """Let the operating system refuse a decoder more memory than any image within the limits needs."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (BASE_BYTES + BYTES_PER_PIXEL * limits.max_pixels, hard))


if __name__ == "__main__":
    main()
