"""Trained checkpoints to self-describing bundles."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as mtcp_serve does, and says why
