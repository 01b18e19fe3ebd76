"""What libraries write to stderr past Python's logging, as lines of the log."""

import atexit
import faulthandler
import logging
import os
import threading
from typing import TextIO

_STDERR = 2
_log = logging.getLogger("stderr")


def capture_native_output() -> TextIO:
    """From now on every line that is written to stderr is logged as a warning of ``stderr``.

    Those of C libraries too. A writer is never kept waiting: what is more than the pipe holds is lost. What
    Python says of its own crash goes to the real stderr, since nobody would be left to log it.

    Returns:
        The real stderr, for the log's handler.
    """
    real = os.fdopen(os.dup(_STDERR), "w", buffering=1)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.dup2(writing, _STDERR)
    os.close(writing)
    faulthandler.enable(file=real)

    def pump() -> None:
        with os.fdopen(reading, errors="replace") as lines:
            for line in lines:
                if text := line.rstrip():
                    _log.warning("%s", text)

    thread = threading.Thread(target=pump, name="mtcp-stderr", daemon=True)
    thread.start()

    def restore() -> None:
        os.dup2(real.fileno(), _STDERR)  # the last writing end of the pipe: the thread comes to its end
        thread.join(1)

    atexit.register(restore)
    return real
