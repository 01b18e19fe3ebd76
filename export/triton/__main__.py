"""``python -m export.triton``: see `export.triton.cli`."""

import signal

from export.triton.cli import app

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as after Ctrl-C
    app()
