"""One image, five maps: multi-task dense prediction in a program, over HTTP and on the command line.

In a program::

    import mtcp_serve

    model = mtcp_serve.load()
    maps = model.predict("a.jpg", tasks=["depth"])
    maps["depth"]  # float32 [height, width], metres

Everything here is imported when it is first used. The server's application is
``mtcp_serve.server.app:create_app``, its settings `mtcp_serve.server.settings.Settings`.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtcp_serve._version import __version__
    from mtcp_serve.bundle.bundle import Bundle
    from mtcp_serve.bundle.manifest import Manifest
    from mtcp_serve.errors import BundleError, MtcpServeError, RequestError
    from mtcp_serve.inference.camera import CameraRequest
    from mtcp_serve.inference.images import ImageLimits
    from mtcp_serve.model import Model, load
    from mtcp_serve.prediction import Prediction

# ONNX Runtime's Linux packages (since 1.29) keep an id of the machine in the home folder and report what they
# run to their maker, unless this is set before the import. Images and models are nobody else's affair.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "CameraRequest": "inference.camera",
    "ImageLimits": "inference.images",
    "Manifest": "bundle.manifest",
    "Model": "model",
    "MtcpServeError": "errors",
    "Prediction": "prediction",
    "RequestError": "errors",
    "__version__": "_version",
    "load": "model",
}

__all__ = [
    "Bundle",
    "BundleError",
    "CameraRequest",
    "ImageLimits",
    "Manifest",
    "Model",
    "MtcpServeError",
    "Prediction",
    "RequestError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
