"""Opening what the settings name: bundles in folders, or the models of Triton servers."""

from mtcp_serve.engine import Engine
from mtcp_serve.errors import BundleError
from mtcp_serve.onnx_engine import OnnxEngine
from mtcp_serve.settings import Settings


def load_engines(settings: Settings) -> list[Engine]:
    """An engine for each bundle, in order; with Triton endpoints one for each model that Triton has.

    Raises:
        BundleError: a bundle is missing, damaged, or cannot be run; or no Triton answers.
    """
    if not settings.triton:
        return [OnnxEngine.load(folder, settings.provider, settings.threads) for folder in settings.bundle]
    try:
        from mtcp_serve.triton_engine import TritonEngine
    except ImportError as error:
        raise BundleError(f"{error}; pip install 'mtcp-serve[triton]' brings Triton's client") from error
    return [*TritonEngine.load(settings.triton, settings.triton_ca)]
