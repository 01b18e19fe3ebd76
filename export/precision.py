"""``python -m export.precision``: see `export.fp16.cli`."""

import signal

from export.fp16.cli import app

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as after Ctrl-C
    app()
