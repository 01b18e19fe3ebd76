"""Opening the bundles that the settings name."""

from mtcp_serve.engine import Engine
from mtcp_serve.onnx_engine import OnnxEngine
from mtcp_serve.settings import Settings


def load_engines(settings: Settings) -> list[Engine]:
    """An engine for each bundle, in order.

    Raises:
        BundleError: a bundle is missing, damaged, or cannot be run.
    """
    return [OnnxEngine.load(folder, settings.provider, settings.threads) for folder in settings.bundle]
