"""Opening what the settings name: bundles in folders, or the models of Triton servers."""

from pathlib import Path
from typing import TYPE_CHECKING

from mtcp_serve.engines.base import Engine
from mtcp_serve.errors import BundleError
from mtcp_serve.server.settings import Provider, Settings

if TYPE_CHECKING:
    from mtcp_serve.engines.onnxruntime import OnnxEngine


def load_engines(settings: Settings) -> list[Engine]:
    """An engine for each bundle, in order; with Triton endpoints one for each model that Triton has.

    Raises:
        BundleError: a bundle is missing, damaged, or cannot be run; or no Triton answers.
    """
    if not settings.triton:
        return [load_bundle(folder, settings.provider, settings.threads) for folder in settings.bundle]
    try:
        from mtcp_serve.engines.triton import TritonEngine
    except ImportError as error:
        raise BundleError(f"{error}; pip install 'mtcp-serve[triton]' brings Triton's client") from error
    return [*TritonEngine.load(settings.triton, settings.triton_ca)]


def load_bundle(folder: Path, provider: Provider = "auto", threads: int = 0) -> "OnnxEngine":
    """The embedded engine for the bundle in ``folder``; see `mtcp_serve.engines.onnxruntime.OnnxEngine.load`.

    Raises:
        BundleError: as there, or ONNX Runtime is not installed.
    """
    try:
        from mtcp_serve.engines.onnxruntime import OnnxEngine
    except ImportError as error:
        raise BundleError(
            f"{error}; pip install 'mtcp-serve[cpu]' brings ONNX Runtime, 'mtcp-serve[gpu]' its build "
            "for CUDA: one of them, not both"
        ) from error
    return OnnxEngine.load(folder, provider, threads)
