"""``python -m export.trt``: see `export.trt.cli`."""

import signal

from export.trt.cli import app

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as after Ctrl-C
    app()
