"""``python -m export.onnx``: see `export.onnx.cli`."""

import signal

from export.onnx.cli import app

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as after Ctrl-C
    app()
