"""One photo, one request, five maps: serves multi-task dense prediction bundles over HTTP.

This level holds what code outside the server needs, and imports quickly: the bundle contract, the settings
and the errors. The application is ``mtcp_serve.server.app:create_app``, the way from photo to maps without
HTTP is `mtcp_serve.inference.pipeline.Pipeline`.
"""

import os

from mtcp_serve._version import __version__
from mtcp_serve.bundle.bundle import Bundle
from mtcp_serve.bundle.manifest import (
    DepthTask,
    FileEntry,
    InputSpec,
    LabelsTask,
    Manifest,
    NormalsTask,
    ProbabilityTask,
)
from mtcp_serve.errors import BundleError, MtcpServeError, RequestError
from mtcp_serve.server.settings import Settings

# ONNX Runtime's Linux packages (since 1.29) keep an id of the machine in the home folder and report what they
# run to their maker, unless this is set before the import. Photos and models are nobody else's affair.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Bundle",
    "BundleError",
    "DepthTask",
    "FileEntry",
    "InputSpec",
    "LabelsTask",
    "Manifest",
    "MtcpServeError",
    "NormalsTask",
    "ProbabilityTask",
    "RequestError",
    "Settings",
    "__version__",
]
